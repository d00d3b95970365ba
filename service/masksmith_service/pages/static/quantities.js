// Counts and sizes as a person reads them; masksmith_wire.quantities writes the same texts in Python.
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Write a whole number with commas between thousands: 1,048,576. */
export const countText = (count) => count.toLocaleString("en-US", { maximumFractionDigits: 0 });

/** Write a number of bytes in binary units: 512 B, 1.5 KiB, 64 MiB. */
export function sizeText(bytes) {
  let [value, power] = [bytes, 0];
  while (Math.round(value) >= 1024 && power < UNITS.length - 1) [value, power] = [value / 1024, power + 1];
  const text = Number.isInteger(value) || value >= 99.95 ? countText(value) : value.toFixed(1);
  return `${text} ${UNITS[power]}`;
}

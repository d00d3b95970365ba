// Compares two masks of a layer: both pictures show the same window.
import { Picture } from "./picture.js";
import { addControls } from "./controls.js";

const pictures = [...document.querySelectorAll(".viewer")].map((section) => new Picture(section));
for (const picture of pictures) {
  try {
    await picture.open();
    addControls(picture);
  } catch (error) {
    picture.say(error.message);
  }
}
if (pictures.length === 2) {
  const [first, second] = pictures;
  // Use the same colour scale in both.
  first.top = second.top = Math.max(first.top, second.top);
  for (const [picture, other] of [[first, second], [second, first]]) {
    picture.follower = other;
    picture.repaint();
  }
}

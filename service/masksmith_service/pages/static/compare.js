// Two masks of one layer: where one picture goes, the other goes.
import { Picture } from "./picture.js";
import { steer } from "./steering.js";

const pictures = [...document.querySelectorAll(".viewer")].map((section) => new Picture(section));
for (const picture of pictures) {
  try {
    await picture.open();
    steer(picture);
  } catch (error) {
    picture.say(error.message);
  }
}
if (pictures.length === 2) {
  const [first, second] = pictures;
  // Both are shaded alike, so that the same score has the same colour.
  first.top = second.top = Math.max(first.top, second.top);
  for (const [picture, other] of [[first, second], [second, first]]) {
    picture.follower = other;
    picture.repaint();
  }
}

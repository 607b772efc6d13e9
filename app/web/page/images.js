// Images attached to a message: scaled down before they are sent, and without camera metadata.

import { element } from "./dom.js";

const LONGEST_SIDE = 1280;
const MOST = 4;

/** Return an image as a data URL, at most 1,280 pixels wide and high. Throws for other files. */
async function shrink(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d");
  // JPEG knows no transparency.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.85);
}

/** Return data URLs of the files that are images, and whether all of them were. */
export async function readImages(files, room = MOST) {
  const read = await Promise.allSettled([...files].slice(0, room).map(shrink));
  const images = read.filter((one) => one.status === "fulfilled").map((one) => one.value);
  return { images, all: images.length === read.length };
}

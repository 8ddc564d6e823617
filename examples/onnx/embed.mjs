// Prints the embedding of each image, one line per image: node embed.mjs market1501.onnx a.jpg b.jpg ...
import ort from "onnxruntime-node";
import sharp from "sharp";

process.on("uncaughtException", (error) => {
  console.error(`embed: ${error.message}`);
  process.exit(1);
});

const [model, ...paths] = process.argv.slice(2);
if (!paths.length) throw new Error("usage: node embed.mjs MODEL.onnx IMAGE ...");
const session = await ort.InferenceSession.create(model);
const { name, type, shape } = session.inputMetadata[0]; // uint8 [N, height, width, 3]
if (type !== "uint8") throw new Error("the model does not take uint8 images: export it with --input=uint8");
const [, height, width] = shape;

// RGB, 0 to 255. An image of another size is resized with a filter that is close to cv2.INTER_AREA.
const pixels = await Promise.all(
  paths.map((path) =>
    sharp(path).toColourspace("srgb").removeAlpha().resize(width, height, { fit: "fill", kernel: "linear" }).raw().toBuffer(),
  ),
);
const images = new ort.Tensor("uint8", new Uint8Array(Buffer.concat(pixels)), [paths.length, height, width, 3]);
const output = (await session.run({ [name]: images }))[session.outputNames[0]]; // float32 [N, D]
for (let i = 0; i < paths.length; i++) {
  console.log(output.data.slice(i * output.dims[1], (i + 1) * output.dims[1]).join(" "));
}

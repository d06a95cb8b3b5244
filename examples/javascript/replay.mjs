// node replay.mjs ARTIFACT: forecast the golden windows of a saved model; exit code 1 when they do not agree.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import * as ort from "onnxruntime-web";

import { replay } from "./golden.mjs";

const folder = process.argv[2];
const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
const [model, golden] = ["model.onnx", "golden.safetensors"].map((name) => {
  const content = new Uint8Array(readFileSync(join(folder, name)));
  const digest = createHash("sha256").update(content).digest("hex");
  if (digest !== manifest.files[name].sha256) throw new Error(`${name} does not have the digest of the manifest`);
  return content;
});
const found = await replay(ort, { manifest, model, golden });
console.log(JSON.stringify(found));
process.exit(found.agrees ? 0 : 1);

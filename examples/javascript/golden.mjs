// Forecasts from an artifact of tsdistill without Python: the graph takes and gives raw units, so that nothing but
// onnxruntime-web is needed. Works in node and in a browser.

/** Float32 tensors of a safetensors file by name: eight bytes with the header's length, a JSON header, the numbers. */
export function tensors(content) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(content.subarray(8, start)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (name === "__metadata__" || dtype !== "F32") continue;
    // Copied, because the numbers need not lie at a multiple of four bytes.
    const values = new Float32Array(content.slice(start + begin, start + end).buffer);
    found[name] = { shape, values };
  }
  return found;
}

/** Session of a graph, given as bytes; one thread, as in Python. */
export function open(ort, model) {
  ort.env.wasm.numThreads = 1;
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** Forecast (batch, horizon, channel) in raw units of inputs by name, each { shape, values } in raw units. */
export async function forecast(ort, session, inputs) {
  const feeds = {};
  for (const [name, { shape, values }] of Object.entries(inputs)) {
    feeds[name] = new ort.Tensor("float32", values, shape);
  }
  const { forecast } = await session.run(feeds);
  return { shape: forecast.dims, values: forecast.data };
}

/** Forecast the golden windows of an artifact and compare with the stored forecasts, as `tsdistill verify` does. */
export async function replay(ort, { manifest, model, golden }) {
  const { forecast: stored, ...inputs } = tensors(golden);
  const ours = await forecast(ort, await open(ort, model), inputs);
  if (String(ours.shape) !== String(stored.shape)) throw new Error(`forecasts of shape ${ours.shape}`);
  const { unit, tolerance } = manifest.deployment.parity;
  let largest = 0;
  ours.values.forEach((value, place) => {
    const beyond = Math.max(Math.abs(value - stored.values[place]) - step(stored.values[place]), 0);
    const difference = beyond / unit[place % unit.length];
    largest = Number.isFinite(difference) ? Math.max(largest, difference) : Infinity;
  });
  return { n_windows: ours.shape[0], max_difference: largest, tolerance, agrees: largest <= tolerance };
}

/** Distance from a float32 number to the next one. */
function step(value) {
  return 2 ** (Math.max(Math.floor(Math.log2(Math.abs(value) || 2 ** -126)), -126) - 23);
}

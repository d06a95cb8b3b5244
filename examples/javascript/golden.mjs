// Forecasts from an artifact of tsdistill without Python: the graph takes and gives raw units, so that nothing but
// onnxruntime-web is needed. Works in node and in a browser. Where the signature in the manifest has an offset, the graph
// takes and gives values less that offset, golden windows too: `forecastRaw` subtracts and adds it.

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

/**
 * Forecast (batch, horizon, channel) and, of a model that has them, quantiles (batch, horizon, channel, level) in raw
 * units of inputs by name, each { shape, values } in raw units.
 */
export async function forecast(ort, session, inputs) {
  const feeds = {};
  for (const [name, { shape, values }] of Object.entries(inputs)) {
    feeds[name] = new ort.Tensor("float32", values, shape);
  }
  const found = await session.run(feeds);
  return Object.fromEntries(Object.entries(found).map(([name, { dims, data }]) => [name, { shape: dims, values: data }]));
}

/**
 * The same for raw values given as Float64Array: what float32 would lose far from zero is subtracted first and added to
 * the forecasts, which are Float64Array then. `signature` is that of the manifest.
 */
export async function forecastRaw(ort, session, signature, inputs) {
  const offsets = { context: signature.offset, future: signature.future_offset, past: signature.past_offset };
  const byWindow = signature.normalisation === "window";
  const [nWindows, , nChannels] = inputs.context.shape;
  // What each window's channels are less: the offset, or its own last value where it is standardised by itself.
  const levels = Float64Array.from({ length: nWindows * nChannels }, (_, place) => {
    const size = inputs.context.values.length / nWindows;
    const last = inputs.context.values[(Math.floor(place / nChannels) + 1) * size - nChannels + (place % nChannels)];
    return byWindow ? last : offsets.context?.[place % nChannels] ?? 0;
  });
  const level = (place, size, perChannel) => {
    const channel = Math.floor(place / perChannel) % nChannels;
    return levels[Math.floor(place / size) * nChannels + channel];
  };
  const centred = Object.fromEntries(Object.entries(inputs).map(([name, { shape, values }]) => {
    const size = values.length / nWindows;
    const less = (place) => name === "context" ? level(place, size, 1) : offsets[name]?.[place % shape[2]] ?? 0;
    return [name, { shape, values: Float32Array.from(values, (value, place) => value - less(place)) }];
  }));
  const outputs = await forecast(ort, session, centred);
  return Object.fromEntries(Object.entries(outputs).map(([name, { shape, values }]) => {
    const size = values.length / nWindows;
    const raised = Float64Array.from(values, (value, place) => value + level(place, size, shape[3] ?? 1));
    return [name, { shape, values: raised }];
  }));
}

/**
 * The same, one window at a time: for artifacts with `deployment.isolate`, whose forecasts must not be moved by what else
 * is in their batch.
 */
export async function forecastAlone(ort, session, inputs) {
  const [[, { shape: [nWindows] }]] = Object.entries(inputs);
  const alone = [];
  for (let row = 0; row < nWindows; row++) {
    const one = Object.entries(inputs).map(([name, { shape: [, ...rest], values }]) => {
      const size = values.length / nWindows;
      return [name, { shape: [1, ...rest], values: values.slice(row * size, (row + 1) * size) }];
    });
    alone.push(await forecast(ort, session, Object.fromEntries(one)));
  }
  return Object.fromEntries(Object.entries(alone[0]).map(([name, { shape: [, ...rest] }]) => {
    const values = alone.flatMap((each) => [...each[name].values]);
    return [name, { shape: [nWindows, ...rest], values: Float32Array.from(values) }];
  }));
}

/** Forecast the golden windows of an artifact and compare with the stored forecasts, as `tsdistill verify` does. */
export async function replay(ort, { manifest, model, golden }) {
  const { forecast: point, quantiles, ...inputs } = tensors(golden);
  const { isolate, parity: { unit, tolerance } } = manifest.deployment;
  const ours = await (isolate ? forecastAlone : forecast)(ort, await open(ort, model), inputs);
  const largest = Math.max(
    difference(ours.forecast, point, unit),
    quantiles ? difference(ours.quantiles, quantiles, unit) : 0,
  );
  return { n_windows: point.shape[0], max_difference: largest, tolerance, agrees: largest <= tolerance };
}

/** Largest difference in standard deviations; channels are the third axis. */
function difference(ours, stored, unit) {
  if (String(ours?.shape) !== String(stored.shape)) throw new Error(`forecasts of shape ${ours?.shape}`);
  const nLevels = stored.shape[3] ?? 1;
  let largest = 0;
  ours.values.forEach((value, place) => {
    const beyond = Math.max(Math.abs(value - stored.values[place]) - step(stored.values[place]), 0);
    const here = beyond / unit[Math.floor(place / nLevels) % unit.length];
    largest = Number.isFinite(here) ? Math.max(largest, here) : Infinity;
  });
  return largest;
}

/** Distance from a float32 number to the next one. */
function step(value) {
  return 2 ** (Math.max(Math.floor(Math.log2(Math.abs(value) || 2 ** -126)), -126) - 23);
}

// Decoders: weights from base64, and the forward pass.

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function half(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return exponent ? sign * (1 + fraction) * 2 ** (exponent - 15) : sign * fraction * 2 ** -14;
}

// Little-endian float16 numbers as float32, which holds each of them exactly.
function halvesOf(base64) {
  const view = new DataView(bytesOf(base64).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => half(view.getUint16(2 * i, true)));
}

function linear({ inputs, outputs, weight, bias }, x) {
  const y = new Float32Array(outputs);
  for (let row = 0; row < outputs; row++) {
    let sum = bias[row];
    for (let k = 0; k < inputs; k++) sum += weight[row * inputs + k] * x[k];
    y[row] = sum;
  }
  return y;
}

// Transposed convolution with "SAME" padding: a square image grows from `side` to `side * stride`.
function enlarge(layer, x) {
  const { inputs, outputs, side, stride, bias } = layer;
  const area = (side * stride) ** 2;
  const y = new Float32Array(outputs * area);
  for (let o = 0; o < outputs; o++) y.fill(bias[o], o * area, (o + 1) * area);
  for (let c = 0; c < inputs; c++) {
    for (let pixel = 0; pixel < side * side; pixel++) {
      const value = x[c * side * side + pixel];
      if (value) addKernels(layer, y, c, pixel, value);
    }
  }
  return y;
}

// Adds `value` times the kernels of input channel `c` where `pixel` lies in the enlarged image.
function addKernels({ outputs, side, kernel, stride, weight }, y, c, pixel, value) {
  const wide = side * stride;
  const crop = (kernel - stride) >> 1;
  const top = Math.floor(pixel / side) * stride - crop;
  const left = (pixel % side) * stride - crop;
  for (let o = 0; o < outputs; o++) {
    const from = (c * outputs + o) * kernel * kernel;
    for (let i = Math.max(0, -top); i < Math.min(kernel, wide - top); i++) {
      const row = (o * wide + top + i) * wide + left;
      for (let j = Math.max(0, -left); j < Math.min(kernel, wide - left); j++) {
        y[row + j] += value * weight[from + i * kernel + j];
      }
    }
  }
}

const LAYERS = { linear, enlarge, relu: (_, x) => x.map((v) => Math.max(v, 0)) };
const OUTPUTS = { sigmoid: (v) => 1 / (1 + Math.exp(-v)), clip: (v) => Math.min(Math.max(v, 0), 1) };

// A function from a code to the values of an image in [0, 1].
function makeDecoder({ layers, output }) {
  const ready = layers.map((l) => ({ ...l, weight: halvesOf(l.weight), bias: halvesOf(l.bias) }));
  return (z) => ready.reduce((x, layer) => LAYERS[layer.kind](layer, x), Float32Array.from(z)).map(OUTPUTS[output]);
}

// A decoder or an encoder in plain JavaScript: the layers that torch.nn calls by the same names, over float16 weights, one image at a time.

// The 65,536 numbers of 16 bits: sign, five bits of exponent, ten of fraction.
const HALF = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
});

/** Numbers of a text of float16 in base64, little endian, as a Float32Array. */
function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (bits) => HALF[bits]);
}

const size = (shape) => shape.reduce((product, n) => product * n, 1);

/** First and last of `small` positions i for which i * stride - padding + offset is one of `large` positions. */
function overlap(small, large, stride, padding, offset) {
  return [Math.max(0, Math.ceil((padding - offset) / stride)),
          Math.min(small - 1, Math.floor((large - 1 + padding - offset) / stride))];
}

/**
 * Call `visit` for each pair of pixels that a place of the kernel joins: a convolution reads the pixels of the large image
 * and writes those of the small one, a transposed convolution runs the same pairs the other way.
 */
function eachPair({ kernel_size: [height, width], stride, padding }, small, large, visit) {
  for (let ky = 0; ky < height; ky++) {
    const [top, bottom] = overlap(small[0], large[0], stride[0], padding[0], ky);
    for (let kx = 0; kx < width; kx++) {
      const [left, right] = overlap(small[1], large[1], stride[1], padding[1], kx);
      for (let y = top; y <= bottom; y++) {
        const row = (y * stride[0] - padding[0] + ky) * large[1] - padding[1] + kx;
        for (let x = left; x <= right; x++) visit(ky * width + kx, y * small[1] + x, row + x * stride[1]);
      }
    }
  }
}

/** A matrix of `rows` rows turned on its side: between channel by channel, as in PyTorch, and pixel by pixel. */
function transpose(matrix, rows, output = new Float32Array(matrix.length)) {
  const columns = matrix.length / rows;
  for (let i = 0, n = 0; i < rows; i++) for (let j = 0; j < columns; j++) output[j * rows + i] = matrix[n++];
  return output;
}

/** A layer that treats all numbers alike. */
const each = (choose) => (settings, shape) => {
  const change = choose(settings);
  return { shape, run(input, output) {
    for (let i = 0; i < input.length; i++) output[i] = change(input[i]);
  } };
};

/** What batch normalisation is once its statistics stand still: a factor and a term for each channel. */
function scaleAndShift(_, shape, take) {
  const factor = take(shape[0]), term = take(shape[0]);
  return { shape, run(input, output) {
    for (let i = 0; i < input.length; i++) output[i] = factor[i % shape[0]] * input[i] + term[i % shape[0]];
  } };
}

// For each layer, given its settings, the shape of its input and a function that takes the next weights: the shape of its
// output, and `run(input, output)`. Images lie in memory pixel by pixel, so that the innermost loops run over channels.
const LAYERS = {
  Linear({ in_features, out_features }, _, take) {
    const weight = take(out_features * in_features), bias = take(out_features);
    return { shape: [out_features], run(input, output) {
      for (let i = 0, w = 0; i < out_features; i++) {
        let sum = bias[i];
        for (let j = 0; j < in_features; j++) sum += weight[w++] * input[j];
        output[i] = sum;
      }
    } };
  },

  Conv2d(settings, [channels, ...large], take) {
    const { out_channels, kernel_size, stride, padding } = settings, pairs = out_channels * channels;
    const weight = transpose(take(pairs * size(kernel_size)), pairs), bias = take(out_channels);
    const small = large.map((n, axis) => Math.floor((n + 2 * padding[axis] - kernel_size[axis]) / stride[axis]) + 1);
    return { shape: [out_channels, ...small], run(input, output) {
      for (let start = 0; start < output.length; start += out_channels) output.set(bias, start);
      eachPair(settings, small, large, (k, to, from) => {
        for (let o = 0, w = k * pairs; o < out_channels; o++) {
          let sum = 0;
          for (let c = 0; c < channels; c++) sum += weight[w++] * input[from * channels + c];
          output[to * out_channels + o] += sum;
        }
      });
    } };
  },

  ConvTranspose2d(settings, [channels, ...small], take) {
    const { out_channels, kernel_size, stride, padding, output_padding } = settings, pairs = channels * out_channels;
    const weight = transpose(take(pairs * size(kernel_size)), pairs), bias = take(out_channels);
    const large = small.map((n, axis) => (n - 1) * stride[axis] - 2 * padding[axis] + kernel_size[axis] + output_padding[axis]);
    return { shape: [out_channels, ...large], run(input, output) {
      for (let start = 0; start < output.length; start += out_channels) output.set(bias, start);
      eachPair(settings, small, large, (k, from, to) => {
        for (let c = 0; c < channels; c++) {
          const value = input[from * channels + c];
          if (value === 0) continue;      // as most are behind a ReLU
          const w = k * pairs + c * out_channels, start = to * out_channels;
          for (let o = 0; o < out_channels; o++) output[start + o] += value * weight[w + o];
        }
      });
    } };
  },

  // What a model that is told a class adds for it.
  ClassShift({ n_classes }, shape, take) {
    const vectors = take(n_classes * shape[0]);
    return { shape, run(input, output, label) {
      for (let i = 0; i < input.length; i++) output[i] = input[i] + vectors[label * shape[0] + i % shape[0]];
    } };
  },

  BatchNorm1d: scaleAndShift,
  BatchNorm2d: scaleAndShift,

  ReLU: each(() => (x) => (x > 0 ? x : 0)),
  LeakyReLU: each(({ negative_slope }) => (x) => (x > 0 ? x : negative_slope * x)),
  ELU: each(({ alpha }) => (x) => (x > 0 ? x : alpha * Math.expm1(x))),
  SiLU: each(() => (x) => x / (1 + Math.exp(-x))),
  Tanh: each(() => Math.tanh),
  Sigmoid: each(() => (x) => 1 / (1 + Math.exp(-x))),

  // The means of two likelihoods, of which no sigmoid knows.
  ContinuousBernoulli: each(() => (x) => (Math.abs(x) < 1e-3 ? 0.5 + x / 12 : -1 / Math.expm1(-x) - 1 / x)),
  DiscretizedLogistic: each(({ scale }) => (x) => {
    const softplus = (t) => Math.max(t, 0) + Math.log1p(Math.exp(-Math.abs(t))), location = 0.5 + x / 4;
    return scale * (softplus(location / scale) - softplus((location - 1) / scale));
  }),

  Flatten: (_, shape) => ({ shape: [size(shape)], run: (input, output) => transpose(input, size(shape) / shape[0], output) }),
  Unflatten: ({ unflattened_size: shape }) => ({ shape, run: (input, output) => transpose(input, shape[0], output) }),
};

/**
 * The function that runs layers on numbers in the given shape, images pixel by pixel, for a class where they know several; its answer
 * is valid until the next call.
 */
function buildNetwork({ layers, weights: text }, shape) {
  const weights = unpack(text);
  let taken = 0;
  const take = (count) => weights.subarray(taken, taken += count);
  const steps = layers.map(({ layer, ...settings }) => {
    const step = LAYERS[layer](settings, shape, take);
    shape = step.shape;
    return { run: step.run, output: new Float32Array(size(shape)) };
  });
  return (input, label = 0) => steps.reduce((given, { run, output }) => (run(given, output, label), output), Float32Array.from(input));
}

/** The function that decodes a code into intensities. */
const buildDecoder = (network) => buildNetwork(network, [network.latent_dim]);

/** The function that encodes intensities into means and log-variances, one after the other. */
const buildEncoder = (network) => buildNetwork(network, network.image_shape);

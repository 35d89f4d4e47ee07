// The formulas of wiseale_nb.aggregate that the page needs; `mu` and `sigma` hold one list per posterior.

const LOG_2PI = Math.log(2 * Math.PI);

function logSumExp(values) {
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (top === -Infinity) return top;
  return top + Math.log(values.reduce((sum, v) => sum + Math.exp(v - top), 0));
}

function logNormal(z, mu, sigma) {
  let sum = 0;
  for (let k = 0; k < z.length; k++) sum -= 0.5 * ((z[k] - mu[k]) / sigma[k]) ** 2 + Math.log(sigma[k]) + 0.5 * LOG_2PI;
  return sum;
}

// Log density of the aggregate posterior (Eq. 10).
function logAggregate(z, mu, sigma) {
  return logSumExp(mu.map((m, i) => logNormal(z, m, sigma[i]))) - Math.log(mu.length);
}

function logPrior(z) {
  return z.reduce((sum, v) => sum - 0.5 * v * v - 0.5 * LOG_2PI, 0);
}

function mean(values) {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}

// KL of one posterior from the prior, the term of the VAE (Eq. 26).
function sampleKl(mu, sigma) {
  return mu.reduce((sum, m, k) => sum + 0.5 * (m * m + sigma[k] ** 2 - 1) - Math.log(sigma[k]), 0);
}

function meanKl(mu, sigma) {
  return mean(mu.map((m, i) => sampleKl(m, sigma[i])));
}

// The bound of Eq. 21: log mean overlap with the other posteriors, and the cross-entropy to the prior.
function klUpperBound(mu, sigma) {
  const terms = mu.map((m, i) => {
    const overlaps = mu.map((other, j) => logNormal(m, other, other.map((_, k) => Math.hypot(sigma[i][k], sigma[j][k]))));
    const crossEntropy = m.reduce((sum, v, k) => sum + 0.5 * (v * v + sigma[i][k] ** 2 + LOG_2PI), 0);
    return logSumExp(overlaps) - Math.log(mu.length) + crossEntropy;
  });
  return mean(terms);
}

// KL of a one-dimensional aggregate from the prior, by the trapezoidal rule.
function klAggregate(mu, sigma, points = 2001) {
  const reach = Math.max(...mu.map((m, i) => Math.abs(m[0]) + 10 * Math.max(sigma[i][0], 1)));
  const step = (2 * reach) / (points - 1);
  let sum = 0;
  for (let n = 0; n < points; n++) {
    const z = [n * step - reach];
    const logQ = logAggregate(z, mu, sigma);
    sum += Math.exp(logQ) * (logQ - logPrior(z)); // the ends hardly differ from zero
  }
  return sum * step;
}

// Where `f`, which falls and then rises, is least between `low` and `high`: golden section search.
function leastPoint(f, low, high) {
  const ratio = (Math.sqrt(5) - 1) / 2;
  let a = high - ratio * (high - low);
  let b = low + ratio * (high - low);
  let [atA, atB] = [f(a), f(b)];
  while (high - low > 1e-7) {
    if (atA < atB) {
      [high, b, atB] = [b, a, atA];
      a = high - ratio * (high - low);
      atA = f(a);
    } else {
      [low, a, atA] = [a, b, atB];
      b = low + ratio * (high - low);
      atB = f(b);
    }
  }
  return (low + high) / 2;
}

// Where `f`, which falls between `low` and `high`, equals `height`: bisection.
function crossing(f, height, low, high) {
  while (high - low > 1e-9) {
    const middle = (low + high) / 2;
    if (f(middle) > height) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// Standard normal distribution function, for z <= 0: the trapezoidal rule.
function normalTail(z) {
  const step = 0.001;
  let sum = Math.exp(-0.5 * z * z) / 2;
  for (let x = z - step; x > z - 12; x -= step) sum += Math.exp(-0.5 * x * x);
  return (sum * step) / Math.sqrt(2 * Math.PI);
}

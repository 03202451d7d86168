/* Arithmetic with the same results in every browser: sums of 64-bit floats, which are stored as 32-bit ones.

JavaScript rounds + - * / and sqrt as IEEE 754 requires, but leaves Math.exp and Math.tanh to the browser. */

const LN2_HIGH = 6.93147180369123816490e-1, LN2_LOW = 1.90821492927058770002e-10;

const POWERS = [1];  // 2^-k
for (let k = 1; k < 1075; k++) POWERS.push(POWERS[k - 1] / 2);

const COEFFICIENTS = [1];  // 1 / k!
for (let k = 1; k <= 13; k++) COEFFICIENTS.push(COEFFICIENTS[k - 1] / k);

/* Return e^x for x <= 0. */
function expNegative(x) {
  if (x < -740) return 0;
  const k = Math.round(x / (LN2_HIGH + LN2_LOW)), r = x - k * LN2_HIGH - k * LN2_LOW;
  let sum = COEFFICIENTS[13];
  for (let n = 12; n >= 0; n--) sum = sum * r + COEFFICIENTS[n];
  return sum * POWERS[-k];
}

function tanh(x) {
  const e = expNegative(-2 * Math.abs(x)), y = (1 - e) / (1 + e);
  return x < 0 ? -y : y;
}

const sigmoid = x => 0.5 * tanh(0.5 * x) + 0.5;

const softsign = x => x / (1 + Math.abs(x));

/* A weight matrix: its rows one after the other. */
class Matrix {
  constructor(values, columns) {
    Object.assign(this, { values, columns, rows: values.length / columns });
  }

  row(i) {
    return this.values.subarray(i * this.columns, (i + 1) * this.columns);
  }

  /* Return the product of some rows with a vector. Eight rows at a time are three times as fast as one by one. */
  multiply(x, firstRow = 0, endRow = this.rows) {
    const { values, columns } = this, y = new Float32Array(endRow - firstRow);
    let i = firstRow;
    for (; i + 8 <= endRow; i += 8) {
      const a = i * columns, b = a + columns, c = b + columns, d = c + columns;
      const e = d + columns, f = e + columns, g = f + columns, h = g + columns;
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
      for (let j = 0; j < columns; j++) {
        const u = x[j];
        s0 += values[a + j] * u;
        s1 += values[b + j] * u;
        s2 += values[c + j] * u;
        s3 += values[d + j] * u;
        s4 += values[e + j] * u;
        s5 += values[f + j] * u;
        s6 += values[g + j] * u;
        s7 += values[h + j] * u;
      }
      y.set([s0, s1, s2, s3, s4, s5, s6, s7], i - firstRow);
    }
    for (; i < endRow; i++) {
      const row = this.row(i);
      let sum = 0;
      for (let j = 0; j < columns; j++) sum += row[j] * x[j];
      y[i - firstRow] = sum;
    }
    return y;
  }
}

/* Return the sum of vectors of the same length. */
function add(first, ...others) {
  const y = Float32Array.from(first);
  for (const other of others) for (let j = 0; j < y.length; j++) y[j] += other[j];
  return y;
}

/* The random numbers of Python's random.Random(text): the Mersenne Twister, seeded with the SHA-512 of the text. */

const WORD = (1n << 64n) - 1n;

/* Return the first 64 bits of the fraction of a root of a prime. */
function fractionOfRoot(prime, degree) {
  const wanted = BigInt(prime) << (64n * degree);
  let low = 0n, high = 1n << 73n;
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (middle ** degree <= wanted) low = middle;
    else high = middle;
  }
  return low & WORD;
}

const PRIMES = [];
for (let n = 2; PRIMES.length < 80; n++) if (PRIMES.every(prime => n % prime)) PRIMES.push(n);

const ROUND_CONSTANTS = PRIMES.map(prime => fractionOfRoot(prime, 3n));

/* Return the SHA-512 of bytes (FIPS 180-4). crypto.subtle has it only on pages from https, localhost or a file. */
function sha512(bytes) {
  const padded = new Uint8Array(128 * Math.ceil((bytes.length + 17) / 128)), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  view.setBigUint64(padded.length - 8, BigInt(8 * bytes.length));
  const rotate = (x, n) => ((x >> n) | (x << (64n - n))) & WORD;
  const hash = PRIMES.slice(0, 8).map(prime => fractionOfRoot(prime, 2n));
  for (let block = 0; block < padded.length; block += 128) {
    const w = Array.from({ length: 16 }, (_, t) => view.getBigUint64(block + 8 * t));
    for (let t = 16; t < 80; t++) {
      const s0 = rotate(w[t - 15], 1n) ^ rotate(w[t - 15], 8n) ^ (w[t - 15] >> 7n);
      const s1 = rotate(w[t - 2], 19n) ^ rotate(w[t - 2], 61n) ^ (w[t - 2] >> 6n);
      w.push((w[t - 16] + s0 + w[t - 7] + s1) & WORD);
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let t = 0; t < 80; t++) {
      const s1 = rotate(e, 14n) ^ rotate(e, 18n) ^ rotate(e, 41n), choice = (e & f) ^ (~e & WORD & g);
      const s0 = rotate(a, 28n) ^ rotate(a, 34n) ^ rotate(a, 39n), majority = (a & b) ^ (a & c) ^ (b & c);
      const first = h + s1 + choice + ROUND_CONSTANTS[t] + w[t];
      [a, b, c, d, e, f, g, h] = [(first + s0 + majority) & WORD, a, b, c, (d + first) & WORD, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((value, k) => { hash[k] = (hash[k] + value) & WORD; });
  }
  const digest = new DataView(new ArrayBuffer(64));
  hash.forEach((value, k) => digest.setBigUint64(8 * k, value));
  return new Uint8Array(digest.buffer);
}

/* Random(text).random() of Python. */
class PythonRandom {
  constructor(text) {
    const bytes = new TextEncoder().encode(text), key = [];
    const digits = [...bytes, ...sha512(bytes)].reverse();  // of one number, the lowest byte first
    digits.forEach((byte, k) => { key[k >> 2] = (key[k >> 2] | byte << (8 * (k & 3))) >>> 0; });
    this.words = new Uint32Array(624);
    this.place = 624;
    this.seed(key);
  }

  /* init_by_array of the Mersenne Twister (Matsumoto & Nishimura 1998). */
  seed(key) {
    const mt = this.words, mix = (i, factor) => Math.imul(mt[i - 1] ^ (mt[i - 1] >>> 30), factor);
    mt[0] = 19650218;
    for (let i = 1; i < 624; i++) mt[i] = mix(i, 1812433253) + i;
    let i = 1;
    const advance = () => {
      if (++i === 624) {
        mt[0] = mt[623];
        i = 1;
      }
    };
    for (let k = 0; k < Math.max(624, key.length); k++, advance()) {
      const j = k % key.length;
      mt[i] = (mt[i] ^ mix(i, 1664525)) + key[j] + j;
    }
    for (let k = 0; k < 623; k++, advance()) mt[i] = (mt[i] ^ mix(i, 1566083941)) - i;
    mt[0] = 0x80000000;
  }

  nextWord() {
    const mt = this.words;
    if (this.place === 624) {
      for (let k = 0; k < 624; k++) {
        const y = (mt[k] & 0x80000000) | (mt[(k + 1) % 624] & 0x7fffffff);
        mt[k] = mt[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.place = 0;
    }
    let y = mt[this.place++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /* Return a number in [0, 1) with 53 random bits. */
  random() {
    const high = this.nextWord() >>> 5, low = this.nextWord() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }
}

// Python's `random.Random(text)`, so that a scene has the same small offsets here as there:
// the Mersenne Twister (Matsumoto & Nishimura 1998), seeded with a text and its SHA-512.

const MASK = (1n << 64n) - 1n;

export class Random {
  constructor(text) {
    const bytes = new TextEncoder().encode(text);
    this.seed(wordsOf([...bytes, ...sha512(bytes)]));
  }

  seed(key) {
    const state = (this.state = new Uint32Array(624));
    state[0] = 19650218;
    for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, mixed(state[i - 1])) + i;
    let i = 1;
    const next = () => {
      if (++i === 624) [state[0], i] = [state[623], 1];
    };
    for (let k = 0, j = 0; k < Math.max(624, key.length); k++, j = (j + 1) % key.length) {
      state[i] = (state[i] ^ Math.imul(mixed(state[i - 1]), 1664525)) + key[j] + j;
      next();
    }
    for (let k = 1; k < 624; k++) {
      state[i] = (state[i] ^ Math.imul(mixed(state[i - 1]), 1566083941)) - i;
      next();
    }
    state[0] = 0x80000000;
    this.place = 624;
  }

  /** The next 32 bits. */
  word() {
    if (this.place === 624) this.twist();
    let y = this.state[this.place++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  twist() {
    const { state } = this;
    for (let k = 0; k < 624; k++) {
      const y = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
      state[k] = state[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.place = 0;
  }

  /** From 0 up to 1, in 53 bits. */
  random() {
    const high = this.word() >>> 5;
    return (high * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53;
  }

  uniform(low, high) {
    return low + (high - low) * this.random();
  }

  /** From 0 up to, and without, n. */
  below(n) {
    const shift = Math.clz32(n);
    let drawn;
    do drawn = this.word() >>> shift;
    while (drawn >= n);
    return drawn;
  }

  /** Both ends included. */
  integer(low, high) {
    return low + this.below(high - low + 1);
  }

  /** So many of a short list (21 at most: Python draws from longer ones otherwise). */
  sample(list, count) {
    const pool = [...list];
    return Array.from({ length: count }, () => {
      const at = this.below(pool.length);
      const [drawn, last] = [pool[at], pool.pop()];
      if (at < pool.length) pool[at] = last;
      return drawn;
    });
  }
}

const mixed = (word) => word ^ (word >>> 30);

/** A big-endian number's 32-bit words, the lowest first. */
function wordsOf(bytes) {
  const words = [];
  for (let end = bytes.length; end > 0; end -= 4) {
    const four = bytes.slice(Math.max(0, end - 4), end);
    words.push(four.reduce((word, byte) => ((word << 8) | byte) >>> 0, 0));
  }
  while (words.length > 1 && words.at(-1) === 0) words.pop();
  return words;
}

// ---- SHA-512 (FIPS 180-4); the browser's own needs a secure page ----

const PRIMES = Array.from({ length: 420 }, (_, n) => n).filter(
  (n) => n > 1 && !Array.from({ length: n }, (_, d) => d).some((d) => d > 1 && n % d === 0),
);

/** 64 bits of the fractional part of a prime's root. */
function fraction(prime, root) {
  const shifted = BigInt(prime) << BigInt(64 * root);
  let low = 0n;
  for (let bit = 1n << 68n; bit; bit >>= 1n) {
    if ((low + bit) ** BigInt(root) <= shifted) low += bit;
  }
  return low & MASK;
}

const START = PRIMES.slice(0, 8).map((prime) => fraction(prime, 2));
const ROUNDS = PRIMES.slice(0, 80).map((prime) => fraction(prime, 3));
const rotated = (word, ...by) =>
  by.reduce((all, n) => all ^ (((word >> n) | (word << (64n - n))) & MASK), 0n);

export function sha512(message) {
  const length = Math.ceil((message.length + 17) / 128) * 128;
  const padded = new Uint8Array(length);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(length - 8, BigInt(message.length * 8));
  const hash = [...START];
  for (let block = 0; block < length; block += 128) {
    const w = Array.from({ length: 16 }, (_, n) => view.getBigUint64(block + 8 * n));
    for (let n = 16; n < 80; n++) {
      const s0 = rotated(w[n - 15], 1n, 8n) ^ (w[n - 15] >> 7n);
      const s1 = rotated(w[n - 2], 19n, 61n) ^ (w[n - 2] >> 6n);
      w.push((w[n - 16] + s0 + w[n - 7] + s1) & MASK);
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let n = 0; n < 80; n++) {
      const choice = (e & f) ^ (~e & g);
      const t1 = h + rotated(e, 14n, 18n, 41n) + choice + ROUNDS[n] + w[n];
      const t2 = rotated(a, 28n, 34n, 39n) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) & MASK, c, b, a, (t1 + t2) & MASK];
    }
    [a, b, c, d, e, f, g, h].forEach((word, n) => (hash[n] = (hash[n] + word) & MASK));
  }
  const out = new DataView(new ArrayBuffer(64));
  hash.forEach((word, n) => out.setBigUint64(8 * n, word));
  return new Uint8Array(out.buffer);
}

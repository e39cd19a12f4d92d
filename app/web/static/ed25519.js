// SHA-256 and SHA-512 (FIPS 180-4) and the verification of Ed25519 (RFC 8032), in plain JavaScript:
// the page must also work from a disk and without HTTPS, where a browser's own are not to be had.
// Everything is public here, so nothing has to take the same time for every input.
"use strict";

const mask = (bits) => (1n << BigInt(bits)) - 1n;

function toInt(bytes) {
  return bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

/** The first 64 bits behind the point of a prime's root: where SHA-2 takes its constants from. */
function fraction(prime, degree) {
  const target = BigInt(prime) << BigInt(64 * degree);
  let root = 0n;
  for (let bit = 1n << 70n; bit; bit >>= 1n) if ((root + bit) ** BigInt(degree) <= target) root += bit;
  return root & mask(64);
}

const PRIMES = Array.from({ length: 410 }, (_, n) => n).filter(
  (n) => n > 1 && !Array.from({ length: n - 2 }, (_, d) => d + 2).some((d) => n % d === 0));

function variant(bits, rounds, ...turns) {
  const cut = (word) => word >> BigInt(64 - bits);
  return {
    bits, rounds, turns: turns.map((three) => three.map(BigInt)),
    start: PRIMES.slice(0, 8).map((prime) => cut(fraction(prime, 2))),
    constants: PRIMES.slice(0, rounds).map((prime) => cut(fraction(prime, 3))),
  };
}

// Bits of a word, rounds, and how far the four functions turn or, at the end of the first two, shift.
const SHA256 = variant(32, 64, [7, 18, 3], [17, 19, 10], [2, 13, 22], [6, 11, 25]);
const SHA512 = variant(64, 80, [1, 8, 7], [19, 61, 6], [28, 34, 39], [14, 18, 41]);

/** The digest of bytes, as bytes. */
function digest({ bits, rounds, turns, start, constants }, bytes) {
  const [word, block] = [bits / 8, bits * 2];
  const [wide, all] = [BigInt(bits), mask(bits)];
  const turn = (x, n) => (x >> n) | ((x << (wide - n)) & all);
  const small = ([a, b, c], x) => turn(x, a) ^ turn(x, b) ^ (x >> c);
  const large = ([a, b, c], x) => turn(x, a) ^ turn(x, b) ^ turn(x, c);
  const padded = new Uint8Array(Math.ceil((bytes.length + 1 + 2 * word) / block) * block);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  new DataView(padded.buffer).setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  let state = start;
  for (let at = 0; at < padded.length; at += block) {
    const w = Array.from({ length: 16 }, (_, n) => toInt(padded.subarray(at + n * word, at + (n + 1) * word)));
    for (let t = 16; t < rounds; t++)
      w.push((small(turns[1], w[t - 2]) + w[t - 7] + small(turns[0], w[t - 15]) + w[t - 16]) & all);
    let [a, b, c, d, e, f, g, h] = state;
    for (let t = 0; t < rounds; t++) {
      const one = h + large(turns[3], e) + ((e & f) ^ (~e & all & g)) + constants[t] + w[t];
      const two = large(turns[2], a) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) & all, c, b, a, (one + two) & all];
    }
    state = [a, b, c, d, e, f, g, h].map((value, n) => (value + state[n]) & all);
  }
  return Uint8Array.from(state.flatMap((value) =>
    Array.from({ length: word }, (_, n) => Number((value >> BigInt(bits - 8 - 8 * n)) & 255n))));
}

const sha256 = (...parts) => digest(SHA256, join(parts));
const sha512 = (...parts) => digest(SHA512, join(parts));

function join(parts) {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

// The curve: -x^2 + y^2 = 1 + D x^2 y^2 modulo P; L is the order of the base point.
const P = (1n << 255n) - 19n;
const L = (1n << 252n) + 27742317777372353535851937790883648493n;
const mod = (value, by = P) => ((value % by) + by) % by;

function power(value, exponent) {
  let made = 1n;
  for (let base = mod(value); exponent; exponent >>= 1n, base = (base * base) % P)
    if (exponent & 1n) made = (made * base) % P;
  return made;
}

const D = mod(-121665n * power(121666n, P - 2n));
const ROOT_OF_MINUS_1 = power(2n, (P - 1n) / 4n);
const ZERO = [0n, 1n, 1n, 0n];

/** The sum of two points in extended coordinates (RFC 8032 section 5.1.4); holds for a double too. */
function add([x1, y1, z1, t1], [x2, y2, z2, t2]) {
  const a = mod((y1 - x1) * (y2 - x2));
  const b = mod((y1 + x1) * (y2 + x2));
  const c = mod(2n * D * t1 % P * t2);
  const d = mod(2n * z1 * z2);
  const [e, f, g, h] = [b - a, d - c, d + c, b + a];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

/** The point of 32 bytes (section 5.1.3); null if they are none, or not its one spelling. */
function decompress(bytes) {
  const number = toInt(bytes.slice().reverse());
  const [sign, y] = [number >> 255n, number & mask(255)];
  if (bytes.length !== 32 || y >= P) return null;
  const [u, v] = [mod(y * y - 1n), mod(D * y * y + 1n)];
  let x = mod(u * v ** 3n * power(u * v ** 7n, (P - 5n) / 8n));
  if (mod(v * x * x) === mod(-u)) x = mod(x * ROOT_OF_MINUS_1);
  if (mod(v * x * x) !== u || (x === 0n && sign)) return null;
  if ((x & 1n) !== sign) x = P - x;
  return [x, y, 1n, mod(x * y)];
}

function compress([x, y, z]) {
  const inverse = power(z, P - 2n);
  const number = mod(y * inverse) | ((mod(x * inverse) & 1n) << 255n);
  return Uint8Array.from({ length: 32 }, (_, n) => Number((number >> BigInt(8 * n)) & 255n));
}

const BASE = decompress(Uint8Array.from({ length: 32 }, (_, n) => (n ? 0x66 : 0x58)));

/** Whether 64 bytes are the key's signature over a message (section 5.1.7, without the cofactor). */
function ed25519(key, message, signature) {
  const point = decompress(key);
  const s = toInt(signature.slice(32).reverse());
  if (signature.length !== 64 || s >= L || point === null) return false;
  const r = signature.slice(0, 32);
  const k = mod(toInt(sha512(r, key, message).reverse()), L);
  const [x, y, z, t] = point;
  const minus = [P - x, y, z, P - t];
  const both = add(BASE, minus);
  let sum = ZERO; // s * BASE - k * point, a bit of each a step
  for (let bit = 252n; bit >= 0n; bit--) {
    sum = add(sum, sum);
    const step = [, BASE, minus, both][Number((s >> bit) & 1n) + 2 * Number((k >> bit) & 1n)];
    if (step) sum = add(sum, step);
  }
  return compress(sum).every((byte, n) => byte === r[n]); // as bytes: r in another spelling fails
}

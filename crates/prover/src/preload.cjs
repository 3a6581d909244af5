'use strict';
// Until the service listens, random numbers are drawn from a seed; then everything is as it was.
const crypto = require('node:crypto');
const { syncBuiltinESMExports } = require('node:module');
const net = require('node:net');

let state = BigInt('SEED');
const next = () => {
  state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
  let mixed = state;
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n);
  mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
  return mixed ^ (mixed >> 31n);
};
const fill = (bytes) => {
  for (let at = 0; at < bytes.length; at++) bytes[at] = Number(next() & 0xffn);
  return bytes;
};
const view = (of) => (ArrayBuffer.isView(of) ? new Uint8Array(of.buffer, of.byteOffset, of.byteLength) : new Uint8Array(of));
const later = (call, error, value) => process.nextTick(() => call(error, value));

const kept = [];
const replace = (object, name, value) => {
  const was = Object.getOwnPropertyDescriptor(object, name);
  // A few cannot be replaced; a secret that is made with them is called memory.
  if (was && !was.configurable) return;
  kept.push([object, name, was]);
  Object.defineProperty(object, name, { value, configurable: true, enumerable: true, writable: true });
};
const restore = () => {
  for (const [object, name, was] of kept) {
    if (was) Object.defineProperty(object, name, was);
    else delete object[name];
  }
  syncBuiltinESMExports();
};

const randomBytes = (size, call) => {
  const bytes = fill(Buffer.alloc(size));
  return call ? later(call, null, bytes) : bytes;
};
const randomFillSync = (target, offset = 0, size = view(target).length - offset) => {
  fill(view(target).subarray(offset, offset + size));
  return target;
};
const randomUUID = () => {
  const bytes = fill(Buffer.alloc(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
};
const getRandomValues = (target) => randomFillSync(target);

const functions = { randomBytes, pseudoRandomBytes: randomBytes, randomFillSync, randomUUID, getRandomValues };
for (const [name, value] of Object.entries(functions)) replace(crypto, name, value);
replace(crypto.webcrypto, 'getRandomValues', getRandomValues);
replace(crypto.webcrypto, 'randomUUID', randomUUID);
replace(Math, 'random', () => Number(next() >> 11n) / 2 ** 53);
syncBuiltinESMExports();

const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (...words) {
  net.Server.prototype.listen = listen;
  this.once('listening', restore);
  return listen.apply(this, words);
};

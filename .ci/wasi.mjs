// Runs a program for wasm32-wasip1 in Node: node .ci/wasi.mjs PROGRAM.wasm [ARGUMENT...]
import { readFile } from 'node:fs/promises';
import { WASI } from 'node:wasi';

const [path, ...args] = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args: [path, ...args], env: process.env, returnOnExit: true });
// Debian's C library has no threads. Rust's standard library asks for them all the same, and is told
// that they are not supported.
const ENOTSUP = 58;
const none = () => 0;
const env = {
  pthread_attr_init: none,
  pthread_attr_setstacksize: none,
  pthread_attr_destroy: none,
  pthread_create: () => ENOTSUP,
  pthread_join: none,
  pthread_detach: none,
};
const { instance } = await WebAssembly.instantiate(await readFile(path), { ...wasi.getImportObject(), env });
process.exitCode = wasi.start(instance);

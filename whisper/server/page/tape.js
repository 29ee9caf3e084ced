// Recordings on their way into the library: kept in the browser's database, piece by piece, until the server has them.
// So an hour does not fill the memory, and a closed tab or a crash loses no more than the last piece.
import { newUid } from "./document.js";
import { joined, wavHeader } from "./pcm.js";
import { Store } from "./ui.js";

const DATABASE = "sotto.recordings";
const PIECE_S = 3;
const lockOf = (id) => `sotto.recording.${id}`;
const releases = new Map(); // id of a tape that this tab takes care of: a function that ends that

export const kept = new Store([]); // tapes that no tab takes care of: {id, name, rate, started, seconds}
let database = null;

function answered(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("tapes", { keyPath: "id" });
    request.result.createObjectStore("pieces", { keyPath: ["id", "index"] });
  };
  return answered(request);
}

/** Do something with the two stores, wholly or not at all. */
async function transact(mode, work) {
  database ??= open();
  database.catch(() => { database = null; });
  const transaction = (await database).transaction(["tapes", "pieces"], mode);
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error || new Error("the browser's storage gave up"));
  });
  const [answer] = await Promise.all([work(transaction.objectStore("tapes"), transaction.objectStore("pieces")), done]);
  return answer;
}

const write = (about, index, samples) => transact("readwrite", async (tapes, pieces) => {
  pieces.put({ id: about.id, index, samples });
  await answered(tapes.put(about));
});
const read = (id, index) => transact("readonly", (_, pieces) => answered(pieces.get([id, index])));
const count = (id) => transact("readonly", (_, pieces) => answered(pieces.count(IDBKeyRange.bound([id], [id, []]))));

/** Take care of a tape; false where another tab does. */
function hold(id) {
  return new Promise((resolve, reject) => {
    navigator.locks.request(lockOf(id), { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock && new Promise((release) => releases.set(id, release));
    }).catch(reject);
  });
}

/** Look for tapes that a closed tab or a cancelled upload has left. */
export async function findKept() {
  if (!navigator.locks || !window.indexedDB) return;
  const found = await transact("readonly", (tapes) => answered(tapes.getAll()));
  const { held } = await navigator.locks.query();
  const names = new Set(held.map((lock) => lock.name));
  kept.set(found.filter((tape) => !names.has(lockOf(tape.id)) && !releases.has(tape.id)));
}

function release(id) {
  releases.get(id)?.();
  releases.delete(id);
}

export class Tape {
  /** A tape that is recorded; `onTrouble` is called where the browser keeps no more, and pieces stay in memory. */
  static async start(name, rate, onTrouble) {
    const tape = new Tape({ id: newUid(), name, rate, started: Date.now(), seconds: 0 }, 0);
    tape.onTrouble = onTrouble;
    await hold(tape.about.id);
    return tape;
  }

  /** A tape that was kept; null where another tab has it now. */
  static async again(about) {
    if (!await hold(about.id)) return null;
    try {
      return new Tape(about, await count(about.id));
    } catch (error) {
      release(about.id);
      throw error;
    }
  }

  constructor(about, n) {
    this.about = about;
    this.n = n; // pieces
    this.blocks = [];
    this.waiting = 0; // samples in the blocks
    this.memory = new Map(); // pieces that the browser did not keep
    this.writing = Promise.resolve();
  }

  append(samples) {
    this.blocks.push(samples);
    this.waiting += samples.length;
    this.about.seconds += samples.length / this.about.rate;
    if (this.waiting >= PIECE_S * this.about.rate) this.flush();
  }

  flush() {
    if (!this.waiting) return;
    const piece = joined(this.blocks);
    const index = this.n++;
    const about = { ...this.about };
    [this.blocks, this.waiting] = [[], 0];
    this.writing = this.writing.then(() => write(about, index, piece.buffer)).catch((error) => {
      this.memory.set(index, new Blob([piece]));
      this.onTrouble?.(error);
    });
  }

  /** The whole recording as a file. */
  async file() {
    this.flush();
    await this.writing;
    const pieces = [];
    for (let index = 0; index < this.n; index++) {
      // a Blob lies where the browser wants it, on the disk as well
      pieces.push(this.memory.get(index) || new Blob([(await read(this.about.id, index)).samples]));
    }
    const bytes = pieces.reduce((sum, piece) => sum + piece.size, 0);
    return new File([wavHeader(this.about.rate, bytes), ...pieces], this.about.name, { type: "audio/wav" });
  }

  /** Leave the tape in the browser, for later. */
  async leave() {
    release(this.about.id);
    await new Promise((resolve) => setTimeout(resolve)); // until the lock is gone
    await findKept();
  }

  /** Delete it. */
  async erase() {
    const { id } = this.about;
    await transact("readwrite", (tapes, pieces) => {
      pieces.delete(IDBKeyRange.bound([id], [id, []]));
      return answered(tapes.delete(id));
    });
    release(id);
  }
}

// What a library from npm finds in a ZIP: a line for each entry, NAME SIZE SHA256, the name in
// hex. Complaints of the library end this program, and all of its own checks are on.
//
//     node read.js LIBRARY ARCHIVE [LARGEST]
//
// ARCHIVE is "-" for libraries that read standard input. Of entries above LARGEST bytes only
// name and size are said ("-" in place of the SHA-256), by libraries that read a file.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const { once } = require("node:events");
const { pathToFileURL } = require("node:url");
const { promisify } = require("node:util");

const CHUNK = 1 << 18;
const SAMPLED = 10_000;
const LARGEST = process.argv[4] === undefined ? Infinity : Number(process.argv[4]);
const lines = [];

/** An entry whose content comes in pieces; *size*, if any, is what the library has said of it. */
class Found {
    constructor(name, size) {
        this.name = Buffer.from(name);
        this.expected = size;
        this.size = 0;
        this.hash = crypto.createHash("sha256");
    }

    add(chunk) {
        this.hash.update(chunk);
        this.size += chunk.length;
    }

    end() {
        if (this.expected !== undefined && this.size !== this.expected) {
            throw new Error(`${this.name} has ${this.size} bytes, not ${this.expected}`);
        }
        say(this.name, this.size, this.hash.digest("hex"));
    }
}

function say(name, size, sha256) {
    lines.push(`${Buffer.from(name).toString("hex") || "-"} ${size} ${sha256}\n`);
}

function whole(name, data, size) {
    const found = new Found(name, size);
    found.add(data);
    found.end();
}

async function streamed(name, size, open) {
    if (size > LARGEST) {
        say(name, size, "-");
        return;
    }
    const found = new Found(name, size);
    for await (const chunk of await open()) {
        found.add(chunk);
    }
    found.end();
}

// -- in memory -------------------------------------------------------------------------

async function readAdmZip(archive) {
    const AdmZip = require("adm-zip");
    for (const entry of new AdmZip(archive).getEntries()) {
        whole(entry.rawEntryName, entry.getData(), entry.header.size);
    }
}

async function readJsZip(archive) {
    const JSZip = require("jszip");
    const opened = await JSZip.loadAsync(fs.readFileSync(archive), { checkCRC32: true });
    for (const entry of Object.values(opened.files)) {
        // It keeps the original name of files only.
        whole(entry.unsafeOriginalName ?? entry.name, await entry.async("nodebuffer"));
    }
}

async function readFflate(archive) {
    const { unzipSync } = require("fflate");
    for (const [name, data] of Object.entries(unzipSync(fs.readFileSync(archive)))) {
        whole(name, data);
    }
}

// -- from a file, entry by entry ---------------------------------------------------------

async function readYauzl(archive) {
    const yauzl = require("yauzl");
    const options = { lazyEntries: true, strictFileNames: true };
    const opened = await promisify(yauzl.open)(archive, options);
    const openReadStream = promisify(opened.openReadStream).bind(opened);
    await new Promise((resolve, reject) => {
        opened.on("error", reject);
        opened.on("end", resolve);
        opened.on("entry", (entry) => {
            streamed(entry.fileName, entry.uncompressedSize, () => openReadStream(entry)).then(
                () => opened.readEntry(),
                reject,
            );
        });
        opened.readEntry();
    });
}

async function readYauzlPromise(archive) {
    const opened = await require("yauzl-promise").open(archive, { strictFilenames: true });
    for await (const entry of opened) {
        await streamed(entry.filename, entry.uncompressedSize, () => entry.openReadStream());
    }
    await opened.close();
}

async function readNodeStreamZip(archive) {
    const StreamZip = require("node-stream-zip");
    const opened = new StreamZip.async({ file: archive });
    for (const entry of Object.values(await opened.entries())) {
        // It refuses to read a folder.
        await streamed(entry.name, entry.size, () =>
            entry.isDirectory ? [] : opened.stream(entry),
        );
    }
    await opened.close();
}

async function readUnzipperOpen(archive) {
    const directory = await require("unzipper").Open.file(archive);
    for (const entry of directory.files) {
        await streamed(entry.path, entry.uncompressedSize, () => entry.stream());
    }
}

/** A file, read as needed, for libraries that want to be given such a thing. */
class RandomAccess {
    constructor(path) {
        this.file = fs.openSync(path);
        this.size = fs.fstatSync(this.file).size;
    }

    async getLength() {
        return this.size;
    }

    async read(offset, length) {
        const buffer = new Uint8Array(length);
        return buffer.subarray(0, fs.readSync(this.file, buffer, 0, length, offset));
    }
}

async function readUnzipit(archive) {
    const { unzipRaw } = await import(pathToFileURL(require.resolve("unzipit")).href);
    for (const entry of (await unzipRaw(new RandomAccess(archive))).entries) {
        await streamed(entry.nameBytes, entry.size, () => entry.stream({ chunkSize: CHUNK }));
    }
}

async function readZipJs(archive) {
    const zip = require("@zip.js/zip.js");
    zip.configure({ useWebWorkers: false, chunkSize: CHUNK });
    const file = new RandomAccess(archive);
    class FileReader extends zip.Reader {
        async init() {
            await super.init();
            this.size = file.size;
        }

        async readUint8Array(offset, length) {
            return file.read(offset, length);
        }
    }
    const options = { strictness: "strict", checkCrc32: true, checkOverlappingEntry: true };
    const opened = new zip.ZipReader(new FileReader(), options);
    const entries = await opened.getEntries();
    for (const [number, entry] of entries.entries()) {
        if (entry.warnings?.length) {
            throw new Error(`${entry.filename}: ${JSON.stringify(entry.warnings)}`);
        }
        // Of very many, one in a hundred: each takes this library milliseconds.
        if (entry.uncompressedSize > LARGEST || (entries.length > SAMPLED && number % 100)) {
            say(entry.filename, entry.uncompressedSize, "-");
            continue;
        }
        const found = new Found(entry.filename, entry.uncompressedSize);
        await entry.getData(new WritableStream({ write: (chunk) => found.add(chunk) }));
        found.end();
    }
    await opened.close();
}

// -- from a pipe -------------------------------------------------------------------------

async function readUnzipperParse() {
    const entries = require("unzipper").Parse({ forceStream: true });
    process.stdin.on("error", (error) => entries.destroy(error)).pipe(entries);
    for await (const entry of entries) {
        await streamed(entry.props.pathBuffer, entry.size, () => entry);
    }
}

async function readFflateStream() {
    const { Unzip, UnzipPassThrough } = require("fflate");
    const unzip = new Unzip((file) => {
        const found = new Found(file.name, file.originalSize);
        file.ondata = (error, chunk, final) => {
            if (error) {
                throw error;
            }
            found.add(chunk);
            if (final) {
                found.end();
            }
        };
        file.start();
    });
    unzip.register(UnzipPassThrough);
    for await (const chunk of process.stdin) {
        unzip.push(chunk);
    }
    unzip.push(new Uint8Array(0), true);
}

const LIBRARIES = {
    "adm-zip": readAdmZip,
    fflate: readFflate,
    "fflate-stream": readFflateStream,
    jszip: readJsZip,
    "node-stream-zip": readNodeStreamZip,
    unzipit: readUnzipit,
    "unzipper-open": readUnzipperOpen,
    "unzipper-parse": readUnzipperParse,
    yauzl: readYauzl,
    "yauzl-promise": readYauzlPromise,
    "zip.js": readZipJs,
};

async function main() {
    // A promise that is never settled ends Node in silence and with status 0.
    process.exitCode = 3;
    await LIBRARIES[process.argv[2]](process.argv[3]);
    for (const line of lines) {
        if (!process.stdout.write(line)) {
            await once(process.stdout, "drain");
        }
    }
    process.exitCode = 0;
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});

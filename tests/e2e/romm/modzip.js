// What nginx's ZIP module does with a list whose CRCs aren't known, for a Debian that doesn't have
// the module: one archive, whole, whatever range was asked for. Small: all of it is in memory.
import fs from 'fs';

const LIBRARY = '/library/';
let files = null;

function header(r) {
    if (r.headersOut['X-Archive-Files'] === 'zip') {
        files = [];
        delete r.headersOut['Content-Length'];
        delete r.headersOut['X-Archive-Files'];
        delete r.headersOut['X-Archive-Charset'];
        r.headersOut['Content-Type'] = 'application/zip';
    }
}

function body(r, data, flags) {
    if (files === null) {
        r.sendBuffer(data, flags);
        return;
    }
    files.push(data);
    if (flags.last) {
        r.sendBuffer(archive(r, Buffer.concat(files).toString()), flags);
    }
}

function crc32(data) {
    let crc = -1;
    for (let i = 0; i < data.length; i += 1) {
        crc ^= data[i];
        for (let bit = 0; bit < 8; bit += 1) {
            crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
        }
    }
    return (crc ^ -1) >>> 0;
}

function content(r, location) {
    if (location.startsWith('/decode?value=')) {
        return Buffer.from(location.slice(location.indexOf('=') + 1), 'base64');
    }
    return fs.readFileSync(r.variables.romm_library + decodeURIComponent(location).slice(LIBRARY.length));
}

// What the local header and the central directory have in common.
function common(name, data, crc) {
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(0x800, 2);
    fields.writeUInt16LE(0x21, 8);
    fields.writeUInt32LE(crc, 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(data.length, 18);
    fields.writeUInt16LE(name.length, 22);
    return fields;
}

function archive(r, text) {
    const parts = [];
    const central = [];
    let offset = 0;
    let size = 0;
    let count = 0;
    text.split('\n').forEach((line) => {
        const fields = line.split(' ');
        const name = Buffer.from(fields.slice(3).join(' '));
        const data = content(r, fields[2]);
        const shared = common(name, data, crc32(data));
        parts.push(Buffer.from('PK\x03\x04'), shared, name, data);
        const rest = Buffer.alloc(14);
        rest.writeUInt32LE(offset, 10);
        central.push(Buffer.from('PK\x01\x02'), Buffer.from([20, 3]), shared, rest, name);
        offset += 30 + name.length + data.length;
        size += 46 + name.length;
        count += 1;
    });
    const end = Buffer.alloc(18);
    end.writeUInt16LE(count, 4);
    end.writeUInt16LE(count, 6);
    end.writeUInt32LE(size, 8);
    end.writeUInt32LE(offset, 12);
    return Buffer.concat([].concat(parts, central, [Buffer.from('PK\x05\x06'), end]));
}

export default {header, body};

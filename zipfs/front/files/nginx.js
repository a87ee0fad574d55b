// Downloads of several files from zipfs, for an application that answers them with lists for
// nginx's ZIP module. The list becomes a file in the folder of lists, and what is sent is the
// archive that zipfs shows for it. Used by zipfs.conf; njs 0.7.9 or later.
import crypto from 'crypto';
import fs from 'fs';

const KEPT = ['Cache-Control', 'Content-Disposition', 'Expires', 'Set-Cookie'];
const DAY = 86400 * 1000;
const FIRST_PAUSE = 10;
const LONGEST_PAUSE = 250;

async function download(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        r.internalRedirect('@zipfs_passes');
        return;
    }
    let reply;
    try {
        reply = await r.subrequest('/_zipfs/ask', {method: 'GET'});
    } catch (error) {
        r.warn(`zipfs: ${error.message}`);
        r.internalRedirect('@zipfs_passes');
        return;
    }
    if (!isList(reply)) {
        r.internalRedirect('@zipfs_passes');
        return;
    }
    const text = reply.responseBuffer;
    const name = crypto.createHash('sha256').update(text).digest('hex');
    let reason;
    try {
        reason = await offer(r, name, text);
    } catch (error) {
        reason = error.message;
    }
    if (reason) {
        fallBack(r, name, reason);
        return;
    }
    KEPT.forEach((header) => {
        if (reply.headersOut[header] !== undefined) {
            r.headersOut[header] = reply.headersOut[header];
        }
    });
    r.internalRedirect(`/_zipfs/archives/${name}.zip`);
}

function isList(reply) {
    const headers = reply.headersOut;
    return reply.status === 200
        && String(headers['X-Archive-Files']).trim().toLowerCase() === 'zip'
        && headers['Content-Encoding'] === undefined
        && reply.responseBuffer !== undefined;
}

// Have an archive of the list *text*; empty, or the reason why there is none.
async function offer(r, name, text) {
    write(r, name, text);
    const archive = `${r.variables.zipfs_shown}/${name}.zip`;
    const end = Date.now() + 1000 * Number(r.variables.zipfs_wait);
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE)) {
        const isLast = Date.now() >= end;
        if (canRead(archive)) {
            return '';
        }
        if (isLast) {
            return 'no archive yet';
        }
        await sleep(pause);
    }
}

function write(r, name, text) {
    const list = `${r.variables.zipfs_lists}/${name}.list`;
    // One that is asked for again gets a new date: those that nobody asks for can be told by it.
    if (Date.now() - dateOf(list, text.length) < DAY) {
        return;
    }
    const draft = `${r.variables.zipfs_lists}/.${name}.${r.variables.pid}.${r.variables.connection}`;
    fs.writeFileSync(draft, text, {mode: 0o644});
    fs.renameSync(draft, list);
}

// When the list was written, in milliseconds; 0 if it isn't there, or not with *size* bytes.
function dateOf(list, size) {
    try {
        const status = fs.statSync(list);
        return status.size === size ? status.mtimeMs : 0;
    } catch (error) {
        return 0;
    }
}

function canRead(path) {
    try {
        fs.accessSync(path, fs.constants.R_OK);
        return true;
    } catch (error) {
        return false;
    }
}

function sleep(milliseconds) {
    return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function fallBack(r, name, reason) {
    r.warn(`zipfs: not from an archive: ${reason} (list ${name})`);
    r.variables.zipfs_reason = reason;
    if (r.variables.zipfs_fallback === '503') {
        r.headersOut['Retry-After'] = '5';
        r.headersOut['X-Zipfs'] = reason;
        r.return(503);
        return;
    }
    r.internalRedirect('@zipfs_list');
}

export default {download};

// Downloads of several files from zipfs, for an application that answers them with lists for
// nginx's ZIP module. The list becomes a file in the folder of lists, and what is sent is the
// archive that zipfs shows for it. Used by zipfs.conf; njs 0.7.9 or later.
import crypto from 'crypto';
import fs from 'fs';

const LARGEST = 16 * 1024 * 1024;  // bytes of a list
const KEPT = ['Cache-Control', 'Content-Disposition', 'Expires', 'Set-Cookie'];
// Ranges and conditions are for the archive, and the rest for one connection alone.
const LEFT_OUT = new RegExp(
    '^(range|if-.*|accept-encoding|connection|content-length|expect|host|keep-alive|te|trailer'
    + '|transfer-encoding|upgrade|x-forwarded-for|x-forwarded-proto)$'
);
const DAY = 86400 * 1000;
const FIRST_PAUSE = 10;
const LONGEST_PAUSE = 250;

async function download(r) {
    if (r.method !== 'GET' && r.method !== 'HEAD') {
        r.internalRedirect('@zipfs_passes');
        return;
    }
    let reply;
    let text = null;
    try {
        reply = await ask(r);
        if (isList(reply)) {
            const body = await reply.arrayBuffer();  // by itself: njs 0.7 crashes otherwise
            text = Buffer.from(body);
        }
    } catch (error) {
        r.warn(`zipfs: the application's answer is passed on: ${error.message}`);
    }
    if (text === null) {
        r.internalRedirect('@zipfs_passes');
        return;
    }
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
        const values = reply.headers.getAll(header);
        if (values.length > 0) {
            r.headersOut[header] = header === 'Set-Cookie' ? values : values.join(', ');
        }
    });
    r.internalRedirect(`/_zipfs/archives/${name}.zip`);
}

// The application's answer to the request as a GET, for all of it. One that is larger than a list
// may be is an error, whatever it is.
function ask(r) {
    const headers = {
        'Host': r.variables.http_host,
        'X-Forwarded-For': r.variables.zipfs_for,
        'X-Forwarded-Proto': r.variables.scheme,
    };
    r.rawHeadersIn.forEach((pair) => {
        const name = pair[0].toLowerCase();
        if (!LEFT_OUT.test(name)) {
            const between = name === 'cookie' ? '; ' : ', ';
            headers[name] = name in headers ? headers[name] + between + pair[1] : pair[1];
        }
    });
    const url = r.variables.zipfs_asks + r.variables.request_uri;
    return ngx.fetch(url, {headers: headers, max_response_body_size: LARGEST});
}

function isList(reply) {
    const files = reply.headers.get('X-Archive-Files') || '';
    return reply.status === 200
        && files.trim().toLowerCase() === 'zip'
        && !reply.headers.has('Content-Encoding');
}

// Have an archive of the list *text*; empty, or the reason why there is none.
async function offer(r, name, text) {
    write(r.variables.zipfs_lists, name, text, `${r.variables.pid}.${r.variables.connection}`);
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

function write(folder, name, text, own) {
    const list = `${folder}/${name}.list`;
    // One that is asked for again gets a new date: those that nobody asks for can be told by it.
    if (Date.now() - dateOf(list, text.length) < DAY) {
        return;
    }
    const draft = `${folder}/.${name}.${own}`;
    try {
        fs.writeFileSync(draft, text, {mode: 0o644});
        fs.renameSync(draft, list);
    } catch (error) {
        remove(draft);
        throw error;
    }
}

function remove(path) {
    try {
        fs.unlinkSync(path);
    } catch (error) {
        // It isn't there.
    }
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

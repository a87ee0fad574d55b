<?php
// All entries of an archive by PHP's ZipArchive: NAME SIZE SHA256, a line each.

set_error_handler(function ($number, $message) {
    fwrite(STDERR, "$message\n");
    exit(1);
});

[, $path, $large] = $argv;
$archive = new ZipArchive();
$opened = $archive->open($path, ZipArchive::RDONLY | ZipArchive::CHECKCONS);
if ($opened !== true) {
    fwrite(STDERR, "open: $opened\n");
    exit(1);
}
for ($i = 0; $i < $archive->numFiles; $i++) {
    $status = $archive->statIndex($i);
    $sha256 = '-';
    if ($status['size'] < $large) {
        $stream = $archive->getStreamIndex($i);
        $hash = hash_init('sha256');
        if (hash_update_stream($hash, $stream) !== $status['size']) {
            fwrite(STDERR, "{$status['name']}: another size\n");
            exit(1);
        }
        fclose($stream);
        $sha256 = hash_final($hash);
    }
    echo bin2hex($status['name']) ?: '-', " {$status['size']} $sha256\n";
}

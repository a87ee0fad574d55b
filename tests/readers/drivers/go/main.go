// What Go's archive/zip finds in a ZIP: name in hex, size and SHA-256 of each entry.
package main

import (
	"archive/zip"
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := read(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(path string) error {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer archive.Close()
	out := bufio.NewWriter(os.Stdout)
	buffer := make([]byte, 1<<18)
	for _, file := range archive.File {
		data, err := file.Open()
		if err != nil {
			return fmt.Errorf("%q: %w", file.Name, err)
		}
		digest := sha256.New()
		// At the end it compares size and CRC-32, and fails with zip.ErrChecksum.
		size, err := io.CopyBuffer(digest, data, buffer)
		if err != nil {
			return fmt.Errorf("%q: %w", file.Name, err)
		}
		if uint64(size) != file.UncompressedSize64 {
			return fmt.Errorf("%q has %d bytes, not %d", file.Name, size, file.UncompressedSize64)
		}
		data.Close()
		name := "-"
		if file.Name != "" {
			name = fmt.Sprintf("%x", file.Name)
		}
		fmt.Fprintf(out, "%s %d %x\n", name, size, digest.Sum(nil))
	}
	return out.Flush()
}

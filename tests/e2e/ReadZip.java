import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;

/** Reads a ZIP from standard input to its end; says size, time (Unix) and name of each entry. */
final class ReadZip {
    private ReadZip() {}

    public static void main(String[] arguments) throws IOException {
        byte[] buffer = new byte[1 << 18];
        // Not System.out, which flushes with each line.
        PrintStream out = new PrintStream(new java.io.BufferedOutputStream(System.out), false, "UTF-8");
        try (ZipInputStream zip = new ZipInputStream(new BufferedInputStream(System.in, 1 << 18))) {
            ZipEntry entry;
            while ((entry = zip.getNextEntry()) != null) {
                long size = 0;
                int count;
                // At an entry's end it compares size and CRC-32, and throws ZipException.
                while ((count = zip.read(buffer)) != -1) {
                    size += count;
                }
                long seconds = entry.getLastModifiedTime().toMillis() / 1000;
                out.print(size + " " + seconds + " " + entry.getName() + "\0");
            }
        }
        out.close();
    }
}

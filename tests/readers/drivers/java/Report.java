import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.zip.CRC32;

/** Says on standard output what a library found: name in hex, size, SHA-256. */
final class Report implements AutoCloseable {
    private static final HexFormat HEX = HexFormat.of();

    // Not System.out, which flushes with each line.
    private final PrintStream out = new PrintStream(new BufferedOutputStream(System.out), false);
    private final byte[] buffer = new byte[1 << 18];
    private final MessageDigest digest;
    private final long largest;

    /** Of entries above *largest* bytes, if it is given, only name and size are said. */
    Report(String[] arguments) throws NoSuchAlgorithmException {
        digest = MessageDigest.getInstance("SHA-256");
        largest = arguments.length > 2 ? Long.parseLong(arguments[2]) : Long.MAX_VALUE;
    }

    /** Whether all that is to be said of an entry has been said by this. */
    boolean isTooLarge(String name, long size) {
        if (size <= largest) {
            return false;
        }
        out.print(hex(name) + " " + size + " -\n");
        return true;
    }

    private static String hex(String name) {
        byte[] raw = name.getBytes(StandardCharsets.UTF_8);
        return raw.length == 0 ? "-" : HEX.formatHex(raw);
    }

    /**
     * Reads an entry to its end. Throws if that is not what the library has said of it before;
     * -1 where it has said nothing.
     */
    void entry(String name, InputStream data, long size, long crc) throws IOException {
        CRC32 sum = new CRC32();
        long read = 0;
        int count;
        while ((count = data.read(buffer)) != -1) {
            digest.update(buffer, 0, count);
            if (crc != -1) {
                sum.update(buffer, 0, count);
            }
            read += count;
        }
        if (size != -1 && read != size) {
            throw new IOException(name + " has " + read + " bytes, not " + size);
        }
        if (crc != -1 && sum.getValue() != crc) {
            throw new IOException(name + " has another CRC-32");
        }
        out.print(hex(name) + " " + read + " " + HEX.formatHex(digest.digest()) + "\n");
    }

    @Override
    public void close() throws IOException {
        out.close();
        if (out.checkError()) {
            throw new IOException("can't write the report");
        }
    }
}

import java.io.BufferedInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;
import org.apache.commons.compress.archivers.zip.ZipArchiveEntry;
import org.apache.commons.compress.archivers.zip.ZipArchiveInputStream;
import org.apache.commons.compress.archivers.zip.ZipFile;

/** What the two readers of Apache Commons Compress find in a ZIP. */
final class ReadCommons {
    private ReadCommons() {}

    public static void main(String[] arguments) throws Exception {
        try (Report report = new Report(arguments)) {
            switch (arguments[0]) {
                case "file" -> readFile(new File(arguments[1]), report);
                case "stream" -> readStream(report);
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
    }

    private static void readFile(File file, Report report) throws IOException {
        try (ZipFile zip = new ZipFile(file)) {
            for (ZipArchiveEntry entry : Collections.list(zip.getEntries())) {
                if (!zip.canReadEntryData(entry)) {
                    throw new IOException("can't read " + entry.getName());
                }
                if (report.isTooLarge(entry.getName(), entry.getSize())) {
                    continue;
                }
                try (InputStream data = zip.getInputStream(entry)) {
                    report.entry(entry.getName(), data, entry.getSize(), entry.getCrc());
                }
            }
        }
    }

    private static void readStream(Report report) throws IOException {
        try (ZipArchiveInputStream zip =
                new ZipArchiveInputStream(new BufferedInputStream(System.in, 1 << 18))) {
            ZipArchiveEntry entry;
            while ((entry = zip.getNextZipEntry()) != null) {
                if (!zip.canReadEntryData(entry)) {
                    throw new IOException("can't read " + entry.getName());
                }
                report.entry(entry.getName(), zip, entry.getSize(), entry.getCrc());
            }
        }
    }
}

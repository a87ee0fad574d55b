import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipInputStream;

/** What the three readers of Java itself find in a ZIP. */
final class ReadZip {
    private ReadZip() {}

    public static void main(String[] arguments) throws Exception {
        try (Report report = new Report(arguments)) {
            switch (arguments[0]) {
                case "file" -> readFile(arguments[1], report);
                case "stream" -> readStream(report);
                case "nio" -> readFileSystem(Path.of(arguments[1]), report);
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
    }

    private static void readFile(String path, Report report) throws IOException {
        try (ZipFile zip = new ZipFile(path)) {
            for (ZipEntry entry : (Iterable<ZipEntry>) zip.stream().<ZipEntry>map(e -> e)::iterator) {
                try (InputStream data = zip.getInputStream(entry)) {
                    report.entry(entry.getName(), data, entry.getSize(), entry.getCrc());
                }
            }
        }
    }

    private static void readStream(Report report) throws IOException {
        try (ZipInputStream zip = new ZipInputStream(new BufferedInputStream(System.in, 1 << 18))) {
            ZipEntry entry;
            while ((entry = zip.getNextEntry()) != null) {
                // It compares the CRC-32 itself, and throws ZipException.
                report.entry(entry.getName(), zip, entry.getSize(), -1);
            }
        }
    }

    private static boolean isEmpty(Path folder) throws IOException {
        try (Stream<Path> found = Files.list(folder)) {
            return found.findAny().isEmpty();
        }
    }

    /** Another implementation than ZipFile, in Java alone: jdk.nio.zipfs. */
    private static void readFileSystem(Path path, Report report) throws IOException {
        try (FileSystem system = FileSystems.newFileSystem(path);
                Stream<Path> all = Files.walk(system.getPath("/"))) {
            for (Iterator<Path> paths = all.iterator(); paths.hasNext(); ) {
                Path found = paths.next();
                String name = found.toString().substring(1);
                if (Files.isDirectory(found) && isEmpty(found)) {
                    String slash = name.endsWith("/") ? "" : "/";
                    report.entry(name + slash, InputStream.nullInputStream(), 0, -1);
                }
                if (Files.isRegularFile(found) && !report.isTooLarge(name, Files.size(found))) {
                    try (InputStream data = Files.newInputStream(found)) {
                        report.entry(name, data, Files.size(found), -1);
                    }
                }
            }
        }
    }
}

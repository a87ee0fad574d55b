# All entries of an archive by Perl's Archive::Zip: NAME SIZE SHA256, a line each.
use strict;
use warnings;
use Archive::Zip qw(:ERROR_CODES);
use Digest::SHA;

my ($path, $large) = @ARGV;
# Whatever it complains of counts.
Archive::Zip::setErrorHandler(sub { die @_ });
my $archive = Archive::Zip->new();
$archive->read($path) == AZ_OK or die "read";
for my $member ($archive->members()) {
    my ($name, $size) = ($member->fileNameAsBytes(), $member->uncompressedSize());
    my $sha256 = '-';
    if ($size < $large) {
        my $digest = Digest::SHA->new(256);
        $member->desiredCompressionMethod(Archive::Zip::COMPRESSION_STORED);
        $member->rewindData() == AZ_OK or die "rewindData";
        my $sum = 0;
        while ($sum < $size) {
            my ($chunk, $status) = $member->readChunk(1 << 20);
            $status == AZ_OK || $status == AZ_STREAM_END or die "readChunk";
            $digest->add($$chunk);
            $sum += length $$chunk;
            last if $status == AZ_STREAM_END;
        }
        $member->endRead();
        $sum == $size or die "$sum bytes instead of $size";
        $sha256 = $digest->hexdigest();
    }
    print unpack('H*', $name) || '-', " $size $sha256\n";
}

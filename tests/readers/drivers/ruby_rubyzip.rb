# All entries of an archive by rubyzip: NAME SIZE SHA256, a line each.
require 'digest'
require 'zip'

path, large = ARGV
# Whatever it complains of counts.
Zip.warn_invalid_date = true
Zip::File.open(path) do |archive|
  archive.each do |entry|
    sha256 = '-'
    if entry.size < large.to_i
      digest = Digest::SHA256.new
      read = 0
      stream = entry.get_input_stream
      # That of a folder has no `read` but one without a size.
      while !entry.directory? && (chunk = stream.read(1 << 20)) && !chunk.empty?
        digest << chunk
        read += chunk.bytesize
      end
      abort "#{entry.name}: #{read} bytes instead of #{entry.size}" if read != entry.size
      sha256 = digest.hexdigest
    end
    puts "#{entry.name.b.unpack1('H*')} #{entry.size} #{sha256}"
  end
end

-- Asks for ranges of a file at random places:  wrk -s ranges.lua URL -- SIZE LENGTH SEED

local size, length

function init(args)
   size, length = tonumber(args[1]), tonumber(args[2])
   math.randomseed(tonumber(args[3]))
end

function request()
   -- At any byte, not at the start of a page: members begin anywhere, and so do the ranges of
   -- programs that read them.
   local first = math.random(0, size - length)
   local range = string.format("bytes=%d-%d", first, first + length - 1)
   return wrk.format("GET", nil, { Range = range })
end

-- One line for bench/load.py: microseconds, requests, bytes with headers, failures.
function done(summary, latency, requests)
   local e = summary.errors
   local failures = e.connect + e.read + e.write + e.status + e.timeout
   io.write(string.format("\n= %d %d %d %d\n",
      summary.duration, summary.requests, summary.bytes, failures))
end

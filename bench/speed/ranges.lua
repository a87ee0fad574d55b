-- Asks for ranges of a file at random places:  wrk -s ranges.lua URL -- SIZE LENGTH SEED

local length, places, modulus, state

function init(args)
   local size, seed = tonumber(args[1]), tonumber(args[3])
   length = tonumber(args[2])
   places = math.max(1, math.floor(size / length) - 1)
   modulus = 1
   while modulus < places do
      modulus = modulus * 2
   end
   state = seed % modulus
   math.randomseed(seed)
end

-- Each place once before any comes twice, so that a first touch is one. (Hull and Dobell: modulo a
-- power of two, an odd increment and a factor one above a multiple of four go through all numbers.)
local function next_place()
   repeat
      state = (state * 1664525 + 1013904223) % modulus
   until state < places
   return state
end

function request()
   -- At any byte, not at the start of a page: members begin anywhere, and so do the ranges of
   -- programs that read them.
   local first = next_place() * length + math.random(0, length - 1)
   local range = string.format("bytes=%d-%d", first, first + length - 1)
   return wrk.format("GET", nil, { Range = range })
end

-- One line for bench/load.py: microseconds, requests, bytes with headers, failures, and the
-- microseconds in which 99 % were answered.
function done(summary, latency, requests)
   local e = summary.errors
   local failures = e.connect + e.read + e.write + e.status + e.timeout
   io.write(string.format("\n= %d %d %d %d %d\n",
      summary.duration, summary.requests, summary.bytes, failures, latency:percentile(99)))
end

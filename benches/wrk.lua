-- Sends the requests of a file, one after the other, each once; prints one line of JSON.
-- The file holds each request after its length in eight digits.

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    rounds = 0
    file = assert(io.open(args[1], "rb"))
    file:setvbuf("full", 262144)
end

function request()
    local length = file:read(8)
    if not length then
        rounds = rounds + 1
        file:seek("set")
        length = file:read(8)
    end
    return file:read(tonumber(length))
end

function done(summary, latency, requests)
    local rounds = 0
    for _, thread in ipairs(threads) do
        rounds = rounds + thread:get("rounds")
    end
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "max": %.3f, "refused": %d, "broken": %d, "rounds": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        latency.max / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout, rounds))
end

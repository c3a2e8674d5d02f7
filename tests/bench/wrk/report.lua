-- What every script says at the end: one line of JSON behind a marker, for harness.py.
function done(summary, latency, _)
    io.write(string.format(
        '\nRESULT {"requests":%d,"duration_us":%d,"refused":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests, summary.duration, summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end

-- Every thread gets a number, so that no two draw the same sequence.
local threads = 0
function setup(thread)
    threads = threads + 1
    thread:set("thread_number", threads)
end

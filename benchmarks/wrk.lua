-- Posts the file BODY, or its lines in turn, and prints what came of it as one JSON line.
local file = assert(io.open(os.getenv("BODY"), "rb"))
local body = file:read("*a")
file:close()
wrk.method = "POST"
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
wrk.headers["Accept"] = os.getenv("CONTENT_TYPE")

if os.getenv("LINES") then
  local requests, turn = {}, 0
  function init(args)
    for line in body:gmatch("[^\n]+") do
      requests[#requests + 1] = wrk.format(nil, nil, nil, line)
    end
  end
  function request()
    turn = turn % #requests + 1
    return requests[turn]
  end
else
  wrk.body = body
end

print('{"event": "started"}')
function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"event": "ended", "requests": %d, "duration_s": %.6f, "lost": %d, "refused": %d, "p50_ms": %.3f, "p99_ms": %.3f}',
    summary.requests, summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.timeout,
    errors.status, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end

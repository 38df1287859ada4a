-- What wrk sends in the benchmarks, and how it reports. Read from the environment:
--   LUTHIEN_BENCH_SHAPE   openai (default) or anthropic
--   LUTHIEN_BENCH_STREAM  1 for a streamed answer
--   LUTHIEN_BENCH_TURNS   question-and-answer pairs already in the conversation (0)
--   LUTHIEN_BENCH_SPREAD  1: each request is another conversation, so that each is a session of its own
-- Prints one line "figures {…}" at the end: counts, and latencies in microseconds.

local shape = os.getenv("LUTHIEN_BENCH_SHAPE") or "openai"
local streamed = os.getenv("LUTHIEN_BENCH_STREAM") == "1"
local turns = tonumber(os.getenv("LUTHIEN_BENCH_TURNS") or "0")
local spread = os.getenv("LUTHIEN_BENCH_SPREAD") == "1"

local model = shape == "anthropic" and "claude-sonnet-4-5" or "gpt-4o-mini"
local path = shape == "anthropic" and "/v1/messages" or "/v1/chat/completions"

wrk.method = "POST"
wrk.path = path
wrk.headers["content-type"] = "application/json"
if shape == "anthropic" then
  wrk.headers["x-api-key"] = "sk-ant-benchmark"
  wrk.headers["anthropic-version"] = "2023-06-01"
else
  wrk.headers["authorization"] = "Bearer sk-benchmark"
end

local function message(role, text)
  return string.format('{"role":"%s","content":"%s"}', role, text)
end

local function body(opening)
  local messages = {}
  if shape == "openai" then
    messages[1] = message("system", "You are the pilot of a coasting ship and answer in one or two sentences.")
  end
  for turn = 1, turns do
    messages[#messages + 1] = message("user", "Leg " .. turn .. ": which landmark do we keep to starboard, and how deep is the channel there?")
    messages[#messages + 1] = message("assistant", "The white tower on the bluff; hold it a hand's breadth off the bow and you have nine fathoms all the way in.")
  end
  messages[#messages + 1] = message("user", opening .. "What lies a day's sail west of the harbour, and who has been there?")
  return string.format('{"model":"%s","max_tokens":64,%s"messages":[%s]}', model, streamed and '"stream":true,' or "", table.concat(messages, ","))
end

local number, prepared = 0, nil

function init(_)
  prepared = wrk.format(nil, path, nil, body(""))
end

function request()
  if not spread then
    return prepared
  end
  number = number + 1
  return wrk.format(nil, path, nil, body("Watch " .. number .. ". "))
end

function done(summary, latency, _)
  io.write(string.format(
    'figures {"requests":%d,"seconds":%.6f,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,"bad_status":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
    summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end

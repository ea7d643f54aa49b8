// The program that scripts/benchmarks/benchmark.py times: answers requests, one JSON object a line on stdin, with one a
// line on stdout. In one process, so that weights stay loaded and packed between grids as they do in a batch.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>

#include "rometrace/edit/second_moment.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/precision.hpp"
#include "rometrace/trace/gradient.hpp"
#include "rometrace/trace/plain.hpp"
#include "rometrace/trace/sweep.hpp"
#include "rometrace/work/workers.hpp"
#include "trace/neuron_values.hpp"

namespace {

using nlohmann::json;
using namespace rometrace;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

at::ScalarType dtype_of(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float64") return at::kDouble;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  throw std::invalid_argument("no such dtype: " + name);
}

Kind kind_of(const std::string& name) {
  for (const auto kind : {Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kHead, Kind::kStateMlpSevered,
                          Kind::kStateAttnSevered, Kind::kKnockout}) {
    if (name == to_string(kind)) return kind;
  }
  throw std::invalid_argument("no such kind: " + name);
}

std::vector<Kind> kinds_of(const json& names) {
  std::vector<Kind> kinds;
  for (const std::string name : names) kinds.push_back(kind_of(name));
  return kinds;
}

// The grid as a list of rows, one for each position or group: the scores of its layers, of heads [L, H].
json rows_of(const CausalGrid& grid, std::int64_t layers) {
  json rows = json::array();
  const auto length = layers * grid.heads;
  for (auto row = grid.scores.begin(); row != grid.scores.end(); row += length) {
    rows.push_back(std::vector<double>(row, row + length));
  }
  return rows;
}

class Server {
 public:
  json answer(const json& request) {
    const at::NoGradGuard no_grad;
    const std::string what = request.at("op");
    if (what == "load") return load(request);
    if (what == "trace") return trace(request);
    if (what == "moments") return moments(request);
    if (what == "products") return products(request.at("rows"));
    if (what == "peak") return peak();
    if (what == "threads") {
      use_threads(request.at("threads"));
      return json::object();
    }
    throw std::invalid_argument("no such request: " + what);
  }

 private:
  void use_threads(int threads) {
    at::set_num_threads(threads);
    workers_ = std::make_unique<Workers>(threads);
  }

  json load(const json& request) {
    use_threads(request.at("threads"));
    set_gpu_precision(request.value("tf32", false) ? GpuPrecision::kTf32 : GpuPrecision::kFull);
    model_.reset();
    at::Device device(request.at("device").get<std::string>());
    if (!device.is_cpu() && !device.has_index()) device.set_index(0);
    const double start = now();
    model_ = Decoder::load(request.at("folder").get<std::string>(), dtype_of(request.at("dtype")), device);
    const double loaded = now();
    finish(product_rows(1));
    return {{"seconds", loaded - start}, {"first_product_seconds", now() - start}};
  }

  json trace(const json& request) const {
    const auto range = request.at("subject_range");
    TracePrompt prompt{"", "", request.at("token_ids"), {range[0], range[1]}};
    if (request.contains("target")) prompt.target = {request.at("target").get<std::int32_t>()};
    TraceOptions options;
    const bool neurons = request.at("kinds") == json::array({"neuron"});
    if (neurons) {
      options.kinds.clear();
      options.neurons.emplace().positions = PositionRule::parse(request.value("positions", "subject-last"));
    } else {
      options.kinds = kinds_of(request.at("kinds"));
    }
    options.window = request.at("window");
    options.head_window = request.value("head_window", options.head_window);
    options.knockout_window = request.value("knockout_window", options.knockout_window);
    options.positions = PositionRule::parse(request.value("positions", to_string(options.positions)));
    options.samples = request.at("samples");
    options.corruption.seed = request.at("seed");
    options.corruption.sigma = request.at("sigma");
    RunControl control;
    control.workers = workers_.get();
    if (request.contains("memory")) control.memory = request.at("memory");

    const double start = now();
    const auto clean = run_clean(*model_, prompt, options);
    Sweep sweep;
    if (request.at("engine") == "plain") {
      sweep.trace = trace_plain(*model_, prompt, options, clean, control);
    } else if (request.at("engine") == "gradient") {
      sweep.trace = trace_gradient(*model_, prompt, options, clean, control);
    } else {
      sweep = trace_sweep(*model_, prompt, options, clean, control);
    }
    double seconds = now() - start;
    double ranking = 0;  // the same again, to be taken off
    if (neurons) {
      const double again = now();
      neuron_values(*model_, prompt, options, clean, control);
      ranking = now() - again;
      seconds -= ranking;
    }
    json scores = json::object();
    for (const auto& grid : sweep.trace.grids) {
      scores[std::string(to_string(grid.kind))] = rows_of(grid, sweep.trace.layers);
    }
    return {{"seconds", seconds},
            {"flops", sweep.work.flops(model_->config())},
            {"token_layers",
             {{"keys_values", sweep.work.keys_values},
              {"attention", sweep.work.attention},
              {"mlp", sweep.work.mlp},
              {"answers", sweep.work.answers}}},
            {"ranking_seconds", ranking},
            {"passes", sweep.passes},
            {"answer_id", sweep.trace.answer_id()},
            {"low_score", sweep.trace.low_score},
            {"high_score", sweep.trace.high_score},
            {"scores", scores}};
  }

  // Second moments of some layers' keys over random texts of one length.
  json moments(const json& request) const {
    const std::vector<std::int64_t> layers = request.at("layers");
    const std::int64_t length = request.at("length"), texts = request.at("texts");
    std::mt19937 draw(request.at("seed").get<std::uint32_t>());
    MomentText text;
    text.cut = length;
    for (std::int64_t i = 0; i < length * texts; ++i) {
      text.token_ids.push_back(
          static_cast<std::int32_t>(draw() % static_cast<std::uint32_t>(model_->config().vocab_size)));
      if ((i + 1) % length == 0) text.ends.push_back(i + 1);
    }
    text.texts = texts;
    const double start = now();
    const auto moments = second_moments(*model_, text, layers);
    const double seconds = now() - start;
    json traces = json::array();
    for (const auto& moment : moments) traces.push_back(moment.mean.trace().item<double>());
    return {{"seconds", seconds},
            {"flops", moment_cost(model_->config(), text.tokens(), layers).flops},
            {"tokens", text.tokens()},
            {"traces", traces}};
  }

  // The products of one layer on a block of rows.
  at::Tensor layer_products(std::int64_t layer, const at::Tensor& rows) const {
    const auto block = model_->block(layer);
    const auto& attention = block->attn();
    const auto positions = at::zeros({rows.size(0)}, at::device(rows.device()).dtype(at::kLong));
    attention.keys_values(rows, positions);
    const auto mixed = attention.project(attention.queries(rows, positions));
    if (block->is_mixture()) return block->mixture().output(mixed.to(model_->stream_dtype()));
    return block->mlp().output(block->mlp().hidden(mixed));
  }

  at::Tensor product_rows(std::int64_t rows) const {
    const auto input = at::randn({rows, model_->config().width}, at::device(model_->device())).to(model_->dtype());
    const auto positions = at::zeros({rows}, at::device(model_->device()).dtype(at::kLong));
    return model_->block(0)->attn().queries(input, positions);
  }

  json products(std::int64_t rows) const {
    const auto& config = model_->config();
    const auto input = product_rows(rows);
    constexpr double kLongEnough = 1.0;  // seconds, of all passes
    double best = HUGE_VAL;
    for (double spent = 0; spent < kLongEnough;) {
      const double start = now();
      at::Tensor last;
      for (std::int64_t layer = 0; layer < config.layers; ++layer) last = layer_products(layer, input);
      finish(last);
      const double seconds = now() - start;
      best = std::min(best, seconds);
      spent += seconds;
    }
    const double flops = TokenLayers::through_layers(rows, config).flops(config);
    return {{"gflops", flops / best / 1e9}, {"seconds", best}};
  }

  // Waits for a GPU.
  static void finish(const at::Tensor& tensor) { tensor.sum().item<double>(); }

  // Resident memory of this process, and what tensors took on a GPU, at most.
  json peak() const {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    json peaks = {{"bytes", std::int64_t{usage.ru_maxrss} * 1024}};
    if (model_ == nullptr || model_->device().is_cpu()) return peaks;
    const auto device = model_->device();
    const auto statistics = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
    peaks["device_bytes"] = statistics.allocated_bytes.front().peak;
    return peaks;
  }

  std::unique_ptr<Workers> workers_;
  std::shared_ptr<const Decoder> model_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--one-tensor") return at::zeros({1}).item<float>() == 0 ? 0 : 1;
  Server server;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = server.answer(json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

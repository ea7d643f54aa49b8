#include "rometrace/trace/clean_run.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/readout.hpp"
#include "trace/recorder.hpp"

namespace rometrace {
namespace {

// Logits that are held at once, [rows, K, V]: 32 MB in float32.
constexpr std::int64_t kLogits = std::int64_t{8} << 20;

void refuse_unless_known(const Decoder& model, std::int32_t id, const char* whose) {
  const auto V = model.config().vocab_size;
  if (id >= 0 && id < V) return;
  throw Error(std::string(whose) + "token id " + std::to_string(id) + " is outside the model's vocabulary of " +
              std::to_string(V) + "; the tokeniser does not belong to this model");
}

// What the engines will read of the clean runs of `rows` prompts.
Recorder recorder(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, std::int64_t tokens,
                  std::int64_t rows) {
  std::set<Site> sites;  // what denoising puts back, and what noising holds
  const auto add = [&](const std::vector<Site>& more) { sites.insert(more.begin(), more.end()); };
  if (options.direction != Direction::kNoising) add(sites_of(options.kinds));
  if (options.direction != Direction::kDenoising) add(severed_sites(options.kinds));
  const auto has = [&](Kind kind) {
    return std::find(options.kinds.begin(), options.kinds.end(), kind) != options.kinds.end();
  };
  RecordingShape shape;
  shape.rows = rows;
  shape.tokens = tokens;
  shape.first = prompt.first_corrupted();
  shape.inputs = has(Kind::kKnockout) ? tokens : shape.first + 1;
  if (options.neurons) {
    shape.neuron_layers = layers_of(*options.neurons, model.config());
    shape.neuron_positions = positions_of(options.neurons->positions, prompt);
  }
  return {model, shape, {sites.begin(), sites.end()}};
}

// `answer`: how many tokens it has, in words.
[[noreturn]] void refuse_length(const Decoder& model, std::size_t T, const std::string& answer) {
  throw Error("the prompt has " + std::to_string(T) + " tokens and the answer " + answer + "; this model takes " +
              std::to_string(model.config().longest_prompt() + 1) + " together");
}

// The tokens that are run. Throws Error.
std::vector<std::int32_t> tokens_of(const Decoder& model, const TracePrompt& prompt) {
  for (const auto id : prompt.token_ids) refuse_unless_known(model, id, "");
  for (const auto id : prompt.target) refuse_unless_known(model, id, "the target's ");
  for (const auto id : prompt.other_targets) refuse_unless_known(model, id, "a target's ");
  if (prompt.foil) refuse_unless_known(model, *prompt.foil, "the foil's ");
  const auto T = static_cast<std::int64_t>(prompt.token_ids.size()), K = prompt.answer_tokens();
  if (K > 1 && T + K - 1 > model.config().longest_prompt()) {
    refuse_length(model, prompt.token_ids.size(), std::to_string(K));
  }
  auto ids = prompt.token_ids;
  model.check_length(T);
  if (!prompt.target.empty()) ids.insert(ids.end(), prompt.target.begin(), prompt.target.end() - 1);
  return ids;
}

// What is read of the logits [1, K, V] that say the answer. Throws Error.
void read_answer(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const at::Tensor& logits,
                 CleanRun& run) {
  const auto log_p = at::log_softmax(logits[0][0], -1, at::kDouble);
  if (!std::isfinite(log_p.exp().sum().item<double>())) {
    throw Error(
        "the model's output for this prompt is NaN or infinite: its weights are damaged, or too large for the dtype");
  }
  run.log_probabilities = log_p;
  auto& trace = run.trace;
  trace.prediction_id = log_p.argmax().item<std::int32_t>();
  trace.prediction_score = log_p[trace.prediction_id].exp().item<double>();
  trace.answer_ids = prompt.target.empty() ? std::vector{trace.prediction_id} : prompt.target;
  constexpr auto kNone = std::numeric_limits<double>::quiet_NaN();
  const auto readings = readings_of(prompt, options);
  const auto values = read_logits(logits, Question(prompt, run), readings);
  trace.high_score = values.front();
  for (std::size_t i = 0; i < readings.size(); ++i) {
    trace.measured.push_back({readings[i], values[i + 1], kNone, kNone});
  }
  trace.low_score = trace.low_standard_error = trace.largest_error = kNone;
  trace.tokens = static_cast<std::int64_t>(prompt.token_ids.size());
  trace.layers = model.config().layers;
}

// The most probable token after each of the last states [R, D].
std::vector<std::int32_t> most_probable(const Decoder& model, const at::Tensor& hidden) {
  std::vector<std::int32_t> ids;
  const auto at_once = std::max<std::int64_t>(1, kLogits / model.config().vocab_size);
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += at_once) {
    const auto best = model.logits(hidden.slice(0, begin, begin + at_once)).argmax(-1).cpu();
    for (std::int64_t i = 0; i < best.size(0); ++i) ids.push_back(best[i].item<std::int32_t>());
  }
  return ids;
}

}  // namespace

Recording Recording::rows(std::int64_t begin, std::int64_t count) const {
  Recording some;
  some.first = first;
  some.inputs = inputs.narrow(1, begin, count);
  for (const auto& [site, all] : outputs) some.outputs.emplace(site, all.narrow(1, begin, count));
  if (neurons.defined()) some.neurons = neurons.narrow(1, begin, count);
  some.neuron_layers = neuron_layers;
  some.neuron_positions = neuron_positions;
  return some;
}

Recording Recording::to(at::Device device) const {
  auto there = *this;
  if (inputs.defined()) there.inputs = inputs.to(device);
  for (auto& [site, all] : there.outputs) all = all.to(device);
  if (neurons.defined()) there.neurons = neurons.to(device);
  return there;
}

void CleanRun::move_to(at::Device device) {
  recording = recording.to(device);
  log_probabilities = log_probabilities.to(device);
}

at::Tensor Recording::neurons_at(std::int64_t layer, std::int64_t position) const {
  const auto found = std::lower_bound(neuron_positions.begin(), neuron_positions.end(), position);
  TORCH_INTERNAL_ASSERT(neuron_layers.contains(layer) && found != neuron_positions.end() && *found == position,
                        "neurons that were not kept");
  return neurons[layer - neuron_layers.begin].select(1, found - neuron_positions.begin());
}

std::vector<std::variant<CleanRun, Error>> run_clean_together(const Decoder& model,
                                                              std::span<const TracePrompt* const> prompts,
                                                              const TraceOptions& options, std::stop_token stop) {
  const at::NoGradGuard no_grad;
  std::vector<std::variant<CleanRun, Error>> runs;
  std::vector<std::int32_t> ids;    // of those that are run
  std::vector<std::size_t> places;  // of these in `runs`
  for (const auto* prompt : prompts) {
    try {
      const auto own = tokens_of(model, *prompt);
      CleanRun run;
      run.token_ids = own;
      places.push_back(runs.size());
      runs.emplace_back(std::move(run));
      ids.insert(ids.end(), own.begin(), own.end());
    } catch (const Error& error) {
      runs.emplace_back(error);
    }
  }
  if (places.empty()) return runs;
  const auto rows = static_cast<std::int64_t>(places.size()), R = static_cast<std::int64_t>(ids.size()) / rows;
  const auto& first = *prompts[places.front()];
  auto record = recorder(model, first, options, R, rows);
  const auto tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
    if (stop.stop_requested()) throw Interrupted();
    record(site, layer, value);
  };
  const auto K = first.answer_tokens();
  const auto hidden = model.forward_prompts(ids, R, K, tap);
  const auto at_once = std::max<std::int64_t>(1, kLogits / (K * model.config().vocab_size));
  at::Tensor logits;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (row % at_once == 0) logits = model.logits(hidden.slice(0, row, row + at_once));
    const auto place = places[static_cast<std::size_t>(row)];
    auto& run = std::get<CleanRun>(runs[place]);
    run.recording = record.recording().rows(row, 1);
    try {
      read_answer(model, *prompts[place], options, logits.narrow(0, row % at_once, 1), run);
    } catch (const Error& error) {
      runs[place] = error;
    }
  }
  return runs;
}

CleanRun run_clean(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, std::stop_token stop) {
  const TracePrompt* one = &prompt;
  auto run = std::move(run_clean_together(model, {&one, 1}, options, std::move(stop)).front());
  if (const auto* error = std::get_if<Error>(&run)) throw *error;
  return std::get<CleanRun>(std::move(run));
}

std::vector<std::vector<std::int32_t>> greedy_answers(const Decoder& model, std::span<const TracePrompt* const> prompts,
                                                      std::span<const std::int64_t> most,
                                                      const std::function<bool(std::int32_t)>& ends,
                                                      std::stop_token stop) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<std::int32_t>> answers(prompts.size());
  std::vector<std::size_t> open(prompts.size());  // prompts whose answer goes on
  std::iota(open.begin(), open.end(), std::size_t{0});
  for (std::int64_t said = 0;; ++said) {
    std::erase_if(
        open, [&](std::size_t i) { return said >= most[i] || static_cast<std::int64_t>(answers[i].size()) < said; });
    if (open.empty()) return answers;
    const auto T = static_cast<std::int64_t>(prompts.front()->token_ids.size()) + said;
    if (said > 0 && T > model.config().longest_prompt()) {
      refuse_length(model, prompts.front()->token_ids.size(), "up to " + std::to_string(most[open.front()]));
    }
    std::vector<std::int32_t> token_ids;
    for (const auto i : open) {
      const auto& prompt = prompts[i]->token_ids;
      token_ids.insert(token_ids.end(), prompt.begin(), prompt.end());
      token_ids.insert(token_ids.end(), answers[i].begin(), answers[i].end());
    }
    const auto hidden = model.forward_prompts(token_ids, T, 1, [&](Site, std::int64_t, at::Tensor&) {
      if (stop.stop_requested()) throw Interrupted();
    });
    const auto next = most_probable(model, hidden.select(1, 0));
    for (std::size_t k = 0; k < open.size(); ++k) {
      if (said == 0 || !ends(next[k])) answers[open[k]].push_back(next[k]);
    }
  }
}

}  // namespace rometrace

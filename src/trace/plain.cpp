#include "rometrace/trace/plain.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/both_directions.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
#include "trace/neuron_search.hpp"
#include "trace/readout.hpp"
#include "trace/recorder.hpp"

namespace rometrace {
namespace {

// The runs that a trace of one prompt is made of, for some of its draws.
class PlainRuns {
 public:
  PlainRuns(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
            std::int64_t first_draw, std::int64_t draws, std::stop_token stop)
      : model_(model),
        clean_(clean),
        question_(prompt, clean),
        readings_(readings_of(prompt, options)),
        corruption_(model, options.corruption, prompt.subject_range, prompt.counter_ids, first_draw, draws),
        draws_(draws),
        noising_(options.direction == Direction::kNoising),
        corrupted_(model, shape_of_corrupted(), noising_ ? sites_of(options.kinds) : severed_sites(options.kinds)),
        stop_(std::move(stop)) {}

  // The readings [draws, 1 + readings] of the corrupted run. To be called before patched(), which reads what it leaves.
  std::vector<double> corrupted() {
    return run(draws_, /*corrupt=*/true,
               [&](Site site, std::int64_t layer, at::Tensor& value) { corrupted_(site, layer, value); });
  }

  std::vector<double> patched(const Patch& patch) const {
    const auto rows = patch.of_clean_run ? 1 : draws_;
    const auto& other = noising_ ? corrupted_.recording() : clean_.recording;
    const auto& base = noising_ ? clean_.recording : corrupted_.recording();
    const auto tap = [&](Site site, std::int64_t layer, at::Tensor& value) {
      for (const auto& change : patch.changes) {
        if (change.source == Change::Source::kCut || change.site != site || !change.layers.contains(layer)) continue;
        if (site == Site::kMlpHidden) {
          const auto neurons = value.select(1, patch.position);
          const auto chosen = neurons_of(change, layer, neurons.size(1)).to(neurons.device());
          const auto values = other.neurons_at(layer, patch.position).to(neurons.scalar_type());
          neurons.copy_(at::where(chosen, values, neurons));
          continue;
        }
        const auto& from = change.source == Change::Source::kBase ? base : other;
        const auto width = change.head ? value.size(2) / model_.config().heads : value.size(2);
        const auto first = change.head.value_or(0) * width;
        value.select(1, patch.position)
            .slice(1, first, first + width)
            .copy_(from.output(site, layer, patch.position).slice(1, first, first + width));
      }
    };
    return run(rows, !noising_ && !patch.of_clean_run, tap, [&](std::int64_t layer) { return mask(patch, layer); });
  }

 private:
  RecordingShape shape_of_corrupted() const {
    RecordingShape shape{draws_, static_cast<std::int64_t>(clean_.token_ids.size()), clean_.recording.first};
    if (!noising_) return shape;
    shape.neuron_layers = clean_.recording.neuron_layers;
    shape.neuron_positions = clean_.recording.neuron_positions;
    return shape;
  }

  at::Tensor mask(const Patch& patch, std::int64_t layer) const {
    at::Tensor seen;
    for (const auto& change : patch.changes) {
      if (change.source != Change::Source::kCut || !change.layers.contains(layer)) continue;
      const auto tokens = static_cast<std::int64_t>(clean_.token_ids.size());
      seen = at::ones({tokens, tokens}, at::device(model_.device()).dtype(at::kBool));
      seen.slice(0, patch.position).slice(1, change.cut.begin, change.cut.end).fill_(false);
    }
    return seen;
  }

  std::vector<double> run(std::int64_t rows, bool corrupt, const Tap& tap, const AttentionMask& mask = {}) const {
    const auto all_taps = [&](Site site, std::int64_t layer, at::Tensor& value) {
      if (stop_.stop_requested()) throw Interrupted();
      if (site == Site::kEmbedding && corrupt) corruption_.apply(value);
      tap(site, layer, value);
    };
    const auto hidden = model_.forward(clean_.token_ids, rows, all_taps, mask);
    return read_logits(model_.logits(hidden.slice(1, clean_.trace.tokens - 1)), question_, readings_);
  }

  const Decoder& model_;
  const CleanRun& clean_;
  Question question_;
  std::vector<Reading> readings_;
  Corruption corruption_;
  std::int64_t draws_;
  bool noising_;
  Recorder corrupted_;
  std::stop_token stop_;
};

}  // namespace

Trace trace_plain(const Decoder& model, const TracePrompt& prompt, const TraceOptions& options, const CleanRun& clean,
                  const RunControl& control) {
  if (options.direction == Direction::kBoth) {
    return trace_in_both(options, control, [&](const TraceOptions& one, const RunControl& half) {
      return trace_plain(model, prompt, one, clean, half);
    });
  }
  const at::NoGradGuard no_grad;
  const auto cells = cells_of(prompt, options, model.config());
  std::optional<NeuronSearch> neurons;
  std::vector<Patch> of_neurons;
  if (options.neurons) {
    neurons.emplace(model, prompt, options, clean, control);
    of_neurons = neurons->next(0);
  }
  TraceTally tally(cells.size() + of_neurons.size(), clean.trace.measured.size());
  std::int64_t total = 0, done = 0;
  const auto one_more = [&] {
    if (control.progress) control.progress(++done, total);
  };
  while (!tally.is_done(options)) {
    const auto draws = tally.next_step(options);
    PlainRuns runs(model, prompt, options, clean, tally.draws(), draws, control.stop);
    tally.add_corrupted(runs.corrupted(), options);
    total += static_cast<std::int64_t>(cells.size() + of_neurons.size());
    if (control.progress) control.progress(done, total);
    for (std::size_t i = 0; i < cells.size() && !tally.fault(); ++i) {
      const bool known = cells[i].patch.of_clean_run && tally.draws() > 0;  // more draws tell nothing more of it
      if (!known) tally.add_run(i, runs.patched(cells[i].patch), options);
      one_more();
    }
    for (std::size_t i = 0; i < of_neurons.size() && !tally.fault(); ++i) {
      const auto values = runs.patched(of_neurons[i]);
      neurons->add(i, values);
      if (neurons->is_told(i)) tally.add_run(cells.size() + i, values, options);
      one_more();
    }
    tally.end_step(draws);
  }
  auto trace = trace_of_cells(cells, prompt, options, model.config(), clean.trace, tally);
  if (!neurons) return trace;
  const double base = options.direction == Direction::kNoising ? trace.high_score : trace.low_score;
  while (!(of_neurons = neurons->next(base)).empty()) {
    for (std::int64_t drawn = 0; drawn < tally.draws();) {
      const auto draws = std::min(options.samples, tally.draws() - drawn);
      PlainRuns runs(model, prompt, options, clean, drawn, draws, control.stop);
      runs.corrupted();
      total += static_cast<std::int64_t>(of_neurons.size());
      for (std::size_t i = 0; i < of_neurons.size(); ++i) {
        neurons->add(i, runs.patched(of_neurons[i]));
        one_more();
      }
      drawn += draws;
    }
  }
  trace.neurons = neurons->result(base);
  return trace;
}

}  // namespace rometrace

#include "rometrace/trace/plain.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>

#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/trace/patch.hpp"
#include "trace/corruption.hpp"
#include "trace/draws.hpp"
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
        corrupted_(model, {draws, static_cast<std::int64_t>(clean.token_ids.size()), clean.recording.first, 0},
                   noising_ ? sites_of(options.kinds) : severed_sites(options.kinds)),
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
  const at::NoGradGuard no_grad;
  const auto cells = cells_of(prompt, options, model.config());
  TraceTally tally(cells.size(), clean.trace.measured.size());
  std::int64_t total = 0, done = 0;
  while (!tally.is_done(options)) {
    const auto draws = tally.next_step(options);
    PlainRuns runs(model, prompt, options, clean, tally.draws(), draws, control.stop);
    tally.add_corrupted(runs.corrupted(), options);
    total += static_cast<std::int64_t>(cells.size());
    if (control.progress) control.progress(done, total);
    for (std::size_t i = 0; i < cells.size() && !tally.fault(); ++i) {
      const bool known = cells[i].patch.of_clean_run && tally.draws() > 0;  // more draws tell nothing more of it
      if (!known) tally.add_run(i, runs.patched(cells[i].patch), options);
      if (control.progress) control.progress(++done, total);
    }
    tally.end_step(draws);
  }
  return trace_of_cells(cells, prompt, options, model.config(), clean.trace, tally);
}

}  // namespace rometrace

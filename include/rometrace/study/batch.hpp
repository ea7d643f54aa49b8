#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "rometrace/facts/facts.hpp"
#include "rometrace/facts/swap.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/replicas.hpp"
#include "rometrace/study/answer_rule.hpp"
#include "rometrace/study/verdict.hpp"
#include "rometrace/text/counter_prompt.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Which answer's probability the traces of a batch follow.
enum class Follow {
  kPrediction,  ///< the model's top answer
  kObject,      ///< the fact's object with all its tokens, whatever the model says
};
std::string_view to_string(Follow follow);  ///< "prediction", "object"

/// What becomes of a fact whose top answer is not its object.
enum class OnOtherAnswer { kSkip, kTrace };

struct BatchOptions {
  TraceOptions trace;
  AnswerRule answer;                 ///< with Follow::kPrediction
  std::optional<std::int32_t> foil;  ///< of all facts; none: the object of the partner of a fact that has one
  Engine engine = Engine::kSweep;
  Follow follow = Follow::kPrediction;
  OnOtherAnswer on_other_answer = OnOtherAnswer::kSkip;  ///< with kObject, all facts are traced
  SpecialTokens special_tokens = SpecialTokens::kAsText;
  std::int64_t facts_per_sweep = 0;  ///< at most; 0: as many as pay
  std::int64_t chunk = 0;            ///< items among which sweeps are shared, from the first on; 0: all that there are
};

/// A fact of a batch.
struct BatchItem {
  const std::variant<Fact, BadRecord>* record = nullptr;
  std::int64_t order = 0;          ///< its number in the selection, from 1
  std::optional<Verdict> verdict;  ///< skipped or failed already, for a reason of the caller's
  bool written = false;            ///< its result is known from an earlier run and not told again
  /// What corrupts it, with CorruptionMethod::kTokens.
  const std::variant<Swap, NoSwap>* swap = nullptr;
};

/// Which fact an item is, without `object_tokens`.
FactReference reference_of(const BatchItem& item);

struct BatchResult {
  Verdict verdict;
  FactReference fact;
  TracePrompt prompt;  ///< failed: as far as it is known
  std::optional<CounterPrompt> counter;
  Trace trace;                       ///< skipped: the clean run's numbers only; failed: nothing
  double seconds = 0;                ///< of the fact; facts that share a sweep have equal shares of its time
  std::optional<at::Device> device;  ///< on which it was run last; none where it was not run
};

/// Told of each result, in the order of the items.
using BatchSink = std::function<void(std::size_t index, BatchResult&& result)>;

/// Traces the facts of `items`. Those of one shape (sweep_key) share sweeps where that is faster; which ones depends on
/// `items`, options and `control.memory` alone, and a result is what the fact has alone, within rounding. A fact that
/// cannot be traced has a verdict that says so.
///
/// `control.progress` is told of the sweep at hand, as done and total facts times its own units. `control.stop` is
/// looked at between facts and sweeps, and the model's own where it reads weights: those results that are complete and
/// in order are then still told, and false is returned. Throws Error where `control.memory` does not hold a fact.
///
/// Of several models each takes the next group of facts that share a run when it is free, with `control.memory` for
/// itself; `control.workers` and `control.progress` do not count then. What shares a run does not depend on how many
/// models there are, so neither do results, but for the rounding of unlike devices.
bool trace_facts(const Replicas& models, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                 const BatchOptions& options, const RunControl& control, const BatchSink& sink);

/// The same on one model.
bool trace_facts(const Decoder& model, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                 const BatchOptions& options, const RunControl& control, const BatchSink& sink);

/// What is wrong with a fact's prompt, as far as that can be seen without running the model.
std::optional<Verdict> problem_of_prompt(const Decoder& model, const Tokenizer& tokenizer, const Fact& fact,
                                         const BatchOptions& options);

/// A prompt of each shape (sweep_key) among the facts that can be traced, in the order in
/// which the shapes come up.
std::vector<TracePrompt> shapes_of(const Decoder& model, const Tokenizer& tokenizer, std::span<const BatchItem> items,
                                   const BatchOptions& options);

/// The least `control.memory` with which facts of each of these shapes can be traced, in bytes.
std::int64_t least_memory(const Decoder& model, std::span<const TracePrompt> shapes, const BatchOptions& options);

/// How many facts trace_facts() should be given together so that sweeps are shared well and the clean runs that wait
/// for theirs stay small: 1 where sharing does not pay. Like the groups, it depends on the batch's shapes, model,
/// device and `control.memory` alone, so that a batch that is gone on with is grouped as before.
std::int64_t batch_chunk(const Decoder& model, std::span<const TracePrompt> shapes, const BatchOptions& options,
                         const RunControl& control);

/// How many items trace_facts() should be given at a time where BatchOptions::chunk is `chunk`: that many for each
/// model, or some of these where they are few, so that no model waits long for the others.
std::int64_t batch_round(const Replicas& models, std::int64_t chunk);

}  // namespace rometrace

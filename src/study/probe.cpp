#include "rometrace/study/probe.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/study/answer_rule.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/work/workers.hpp"
#include "text/count_text.hpp"

namespace rometrace {
namespace {

// Logits that are held at once, [rows, V]: 32 MB in float32, and twice that in float64 for their sum.
constexpr std::int64_t kLogits = std::int64_t{8} << 20;

/// Digits alone, at least 1.
std::optional<std::int64_t> parse_count(std::string_view text) {
  std::int64_t value = 0;
  const auto* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < 1) return std::nullopt;
  return value;
}

/// The parts between colons.
std::vector<std::string_view> split_at_colons(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

std::optional<KnownRule> find_known_rule(std::string_view text) {
  const auto parts = split_at_colons(text);
  KnownRule rule;
  std::size_t used = 1;
  const auto next_count = [&](std::int64_t& value) {
    const auto count = parse_count(parts[used++]);
    if (count) value = *count;
    return count.has_value();
  };
  if (parts[0] == "recall") {
    rule = {KnownRule::Measure::kRecall, 1, 1};
    if (parts.size() < 2 || !next_count(rule.rank)) return std::nullopt;
  } else if (parts[0] == "choice") {
    rule.measure = KnownRule::Measure::kChoice;
  } else if (parts[0] != "said") {
    return std::nullopt;
  }
  if (parts.size() > used && !next_count(rule.wordings)) return std::nullopt;
  if (parts.size() > used) return std::nullopt;
  return rule;
}

bool fulfils(const ProbedWording& wording, const KnownRule& rule) {
  switch (rule.measure) {
    case KnownRule::Measure::kSaid:
      return wording.said;
    case KnownRule::Measure::kChoice:
      return wording.choice_rank == 1;
    case KnownRule::Measure::kRecall:
      return wording.rank <= rule.rank;
  }
  return false;
}

ProbeResult& fail(ProbeResult& result, ProbeResult::Status status, std::string cause, std::string reason) {
  result.status = status;
  result.cause = std::move(cause);
  result.reason = std::move(reason);
  result.wordings.clear();
  return result;
}

/// One wording of one fact of the chunk, ready to run.
struct Row {
  std::size_t fact = 0;  // in the chunk
  std::size_t wording = 0;
  std::vector<std::int32_t> token_ids;
};

at::Tensor column_of(const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(values).to(device).unsqueeze(1);  // [R, 1]
}

/// Where the token `id` [R, 1] stands among the tokens `ids` [C] with scores `logits` [R, C]; its own score is `own`
/// [R, 1]. From 1; among equals the smaller id goes first.
at::Tensor rank_among(const at::Tensor& logits, const at::Tensor& ids, const at::Tensor& own, const at::Tensor& id) {
  const auto ahead = logits.gt(own).logical_or_(logits.eq(own).logical_and_(ids.unsqueeze(0).lt(id)));
  return ahead.sum(1) + 1;  // [R]
}

std::vector<double> numbers_of(const at::Tensor& tensor) {
  const auto values = tensor.to(at::kDouble).contiguous().cpu();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

std::vector<std::int64_t> integers_of(const at::Tensor& tensor) {
  const auto values = tensor.to(at::kLong).contiguous().cpu();
  return {values.const_data_ptr<std::int64_t>(), values.const_data_ptr<std::int64_t>() + values.numel()};
}

/// What all chunks share.
struct Study {
  const Decoder& model;
  const Replicas* models;  // null where there is one
  const Tokenizer& tokenizer;
  const ObjectChoices& choices;
  const ProbeOptions& options;
  const RunControl& control;

  /// Who shares batches, or null.
  Workers* workers() const { return !has_several() && model.serves_several() ? control.workers : nullptr; }

  bool has_several() const { return models != nullptr && models->count() > 1; }

  void stop_if_asked() const {
    if (control.stop.stop_requested()) throw Interrupted();
  }
};

/// Facts that are probed together.
class ProbeChunk {
 public:
  ProbeChunk(const Study& study, std::span<const Fact* const> facts) : study_(study), facts_(facts) {
    for (std::size_t i = 0; i < facts.size(); ++i) prepare(i);
  }

  /// Wordings that are run together.
  using Batch = std::span<const Row>;

  /// Those of one length side by side, the same ones however many models there are; of this object.
  std::vector<Batch> batches() {
    const auto shorter = [](const Row& a, const Row& b) { return a.token_ids.size() < b.token_ids.size(); };
    std::stable_sort(rows_.begin(), rows_.end(), shorter);
    const auto tokens = batch_tokens();
    std::vector<Batch> batches;
    for (std::size_t begin = 0; begin < rows_.size(); begin += batches.back().size()) {
      batches.push_back(Batch(rows_).subspan(begin, end_of_batch(begin, tokens) - begin));
    }
    return batches;
  }

  void run_batch(const Decoder& model, Batch rows) {
    study_.stop_if_asked();
    std::vector<std::int32_t> ids;
    for (const auto& row : rows) ids.insert(ids.end(), row.token_ids.begin(), row.token_ids.end());
    const auto T = static_cast<std::int64_t>(rows.front().token_ids.size());
    const auto tap = [&](Site, std::int64_t, at::Tensor&) { study_.stop_if_asked(); };
    const auto hidden = model.forward_prompts(ids, T, 1, tap).select(1, 0);  // [B, E]
    const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, kLogits / model.config().vocab_size));
    for (std::size_t begin = 0; begin < rows.size(); begin += most) {
      const auto part = rows.subspan(begin, std::min(most, rows.size() - begin));
      const auto first = static_cast<std::int64_t>(begin);
      measure(model, part, hidden.slice(0, first, first + static_cast<std::int64_t>(part.size())));
    }
  }

  /// Once all batches are run.
  std::vector<ProbeResult> take_results() {
    refuse_what_is_not_a_number();
    return std::move(results_);
  }

 private:
  void prepare(std::size_t index) {
    const Fact& fact = *facts_[index];
    auto& result = results_.emplace_back();
    if (!read_object(fact, result)) return;
    add_candidates(fact, result);
    std::vector<Row> rows;
    for (std::size_t i = 0; i < fact.wordings.size(); ++i) {
      const auto& prompt = fact.wordings[i].prompt;
      try {
        rows.push_back({index, i, token_ids_of(prompt)});
      } catch (const Error& error) {
        fail(result, ProbeResult::Status::kFailed, "prompt",
             "wording " + std::to_string(i + 1) + ", " + in_quotes(prompt) + ": " + error.what());
        return;
      }
    }
    result.wordings.resize(rows.size());
    std::move(rows.begin(), rows.end(), std::back_inserter(rows_));
  }

  bool read_object(const Fact& fact, ProbeResult& result) const {
    if (!fact.object || strip(*fact.object).empty()) {
      fail(result, ProbeResult::Status::kSkipped, "no_object", "the fact has no object to look for");
      return false;
    }
    try {
      const auto ids = object_token_ids(study_.tokenizer, *fact.object);
      if (ids.empty()) throw Error("the tokeniser has no token for it");
      refuse_ids(ids);
      result.object_tokens = static_cast<std::int64_t>(ids.size());
      result.object_id = ids.front();
      result.object_token = study_.tokenizer.token_bytes(ids.front());
      return true;
    } catch (const Error& error) {
      fail(result, ProbeResult::Status::kFailed, "record", "object " + in_quotes(*fact.object) + ": " + error.what());
      return false;
    }
  }

  void add_candidates(const Fact& fact, ProbeResult& result) {
    const auto& candidates = study_.choices.of(fact);
    result.candidates = static_cast<std::int64_t>(candidate_ids(candidates).size());
    const auto found = candidates.find(result.object_id);
    if (found == candidates.end()) {
      ++result.candidates;
      return;
    }
    const auto itself = found->second.count(std::string(strip(*fact.object)));
    result.alike = static_cast<std::int64_t>(found->second.size() - itself);
  }

  /// Those that the model has.
  const std::vector<std::int64_t>& candidate_ids(const ObjectChoices::Candidates& candidates) {
    const auto [place, is_new] = candidate_ids_.try_emplace(&candidates);
    if (is_new) {
      for (const auto& [id, objects] : candidates) {
        if (id < study_.model.config().vocab_size) place->second.push_back(id);
      }
    }
    return place->second;
  }

  std::vector<std::int32_t> token_ids_of(const std::string& prompt) const {
    auto ids = ids_of(study_.tokenizer.encode_prompt(prompt, study_.options.special));
    const auto most = study_.model.config().longest_prompt();
    if (ids.empty() || static_cast<std::int64_t>(ids.size()) > most) {
      throw Error("has " + count_of(static_cast<std::int64_t>(ids.size()), "token") + "; this model takes 1 to " +
                  std::to_string(most));
    }
    refuse_ids(ids);
    return ids;
  }

  void refuse_ids(const std::vector<std::int32_t>& ids) const {
    const auto vocabulary = study_.model.config().vocab_size;
    const auto largest = *std::max_element(ids.begin(), ids.end());
    if (largest < vocabulary) return;
    throw Error("token id " + std::to_string(largest) + " is outside the model's vocabulary of " +
                std::to_string(vocabulary) + "; the tokeniser does not belong to this model");
  }

  // Of a batch, at most. Where workers share them, small enough that they end together, and large enough for a
  // product's full rate.
  std::int64_t batch_tokens() const {
    constexpr std::int64_t kLeast = 256, kBatchesEach = 4;
    const auto asked = study_.options.batch_tokens;
    const auto* const workers = study_.workers();
    if (workers == nullptr || workers->count() == 1) return asked;
    std::int64_t tokens = 0;
    for (const auto& row : rows_) tokens += std::ssize(row.token_ids);
    return std::min(asked, std::max(kLeast, tokens / (kBatchesEach * workers->count())));
  }

  std::size_t end_of_batch(std::size_t begin, std::int64_t tokens) const {
    const auto T = rows_[begin].token_ids.size();
    const auto most = std::max<std::size_t>(1, static_cast<std::size_t>(tokens) / T);
    auto end = begin + 1;
    while (end < rows_.size() && end - begin < most && rows_[end].token_ids.size() == T) ++end;
    return end;
  }

  /// Reads the results of `rows` from their states `hidden` [R, E].
  void measure(const Decoder& model, Batch rows, const at::Tensor& hidden) {
    const auto logits = model.logits(hidden);  // [R, V]
    const auto device = logits.device();
    std::vector<std::int64_t> objects;
    for (const auto& row : rows) objects.push_back(results_[row.fact].object_id);
    const auto object = column_of(objects, device);             // [R, 1]
    const auto own = logits.gather(1, object);                  // [R, 1]
    const auto [top, top_id] = logits.max(1);                   // [R]; of equals the first
    const auto sum = at::logsumexp(logits.to(at::kDouble), 1);  // [R]
    const auto all_ids = at::arange(logits.size(1), at::device(device).dtype(at::kLong));

    const auto probability = numbers_of(at::exp(own.squeeze(1).to(at::kDouble) - sum));
    const auto answer_probability = numbers_of(at::exp(top.to(at::kDouble) - sum));
    const auto answer = integers_of(top_id);
    const auto rank = integers_of(rank_among(logits, all_ids, own, object));
    const auto choice_rank = choice_ranks(rows, logits, own, object);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& fact = *facts_[rows[i].fact];
      auto& result = results_[rows[i].fact].wordings[rows[i].wording];
      result.probability = probability[i];
      result.rank = rank[i];
      result.choice_rank = choice_rank[i];
      result.answer_id = static_cast<std::int32_t>(answer[i]);
      result.answer = text_of(result.answer_id);
      result.answer_probability = answer_probability[i];
      result.said = result.rank == 1 || strip(result.answer) == strip(*fact.object);
    }
  }

  /// A vocabulary may be padded with ids that the tokeniser does not have; these stand for nothing.
  std::string text_of(std::int32_t id) const {
    return id < study_.tokenizer.size() ? study_.tokenizer.token_bytes(id) : "";
  }

  /// One for each of `rows`; those with the same candidates are ranked together.
  std::vector<std::int64_t> choice_ranks(std::span<const Row> rows, const at::Tensor& logits, const at::Tensor& own,
                                         const at::Tensor& object) {
    std::map<const ObjectChoices::Candidates*, std::vector<std::int64_t>> groups;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      groups[&study_.choices.of(*facts_[rows[i].fact])].push_back(static_cast<std::int64_t>(i));
    }
    std::vector<std::int64_t> ranks(rows.size());
    for (const auto& [candidates, members] : groups) {
      const auto ids = at::tensor(candidate_ids(*candidates)).to(logits.device());
      const auto those = at::tensor(members).to(logits.device());
      const auto scores = logits.index_select(0, those).index_select(1, ids);
      const auto found =
          integers_of(rank_among(scores, ids, own.index_select(0, those), object.index_select(0, those)));
      for (std::size_t i = 0; i < members.size(); ++i) ranks[static_cast<std::size_t>(members[i])] = found[i];
    }
    return ranks;
  }

  void refuse_what_is_not_a_number() {
    for (auto& result : results_) {
      const auto& wordings = result.wordings;
      const auto bad = std::find_if(wordings.begin(), wordings.end(), [](const ProbedWording& wording) {
        return !std::isfinite(wording.probability) || !std::isfinite(wording.answer_probability);
      });
      if (bad == wordings.end()) continue;
      fail(result, ProbeResult::Status::kFailed, "trace",
           "wording " + std::to_string(bad - wordings.begin() + 1) +
               ": the model's output is NaN or infinite: its weights are damaged, or too large for the dtype");
    }
  }

  const Study& study_;
  std::span<const Fact* const> facts_;
  std::vector<ProbeResult> results_;  // one a fact
  std::map<const ObjectChoices::Candidates*, std::vector<std::int64_t>> candidate_ids_;
  std::vector<Row> rows_;
};

}  // namespace

KnownRule parse_known_rule(std::string_view text) {
  if (const auto rule = find_known_rule(text)) return *rule;
  throw Error(
      in_quotes(text) +
      " is no rule; expected said:K, choice:K, recall:R or recall:R:K with K (wordings) and R (rank) from 1, such "
      "as said:2");
}

std::string to_string(const KnownRule& rule) {
  const auto wordings = ":" + std::to_string(rule.wordings);
  switch (rule.measure) {
    case KnownRule::Measure::kSaid:
      return "said" + wordings;
    case KnownRule::Measure::kChoice:
      return "choice" + wordings;
    case KnownRule::Measure::kRecall:
      return "recall:" + std::to_string(rule.rank) + wordings;
  }
  return "unknown";
}

std::string describe(const KnownRule& rule) {
  const std::string what = rule.measure == KnownRule::Measure::kSaid ? "the top answer"
                           : rule.measure == KnownRule::Measure::kChoice
                               ? "first among the relation's objects"
                               : "among the " + count_of(rule.rank, "most probable token");
  return what + " in at least " + count_of(rule.wordings, "wording");
}

std::vector<std::int32_t> object_token_ids(const Tokenizer& tokenizer, std::string_view object) {
  const auto text = strip(object);
  if (text.empty()) return {};
  return ids_of(encode_answer(tokenizer, " " + std::string(text)));
}

void ObjectChoices::add(const Fact& fact) {
  if (!fact.object) return;
  const std::string object(strip(*fact.object));
  std::vector<std::int32_t> ids;
  try {
    ids = object_token_ids(*tokenizer_, object);
  } catch (const Error&) {  // it fails where the fact itself is probed
  }
  if (ids.empty()) return;
  all_[ids.front()].insert(object);
  if (fact.relation) by_relation_[*fact.relation][ids.front()].insert(object);
}

const ObjectChoices::Candidates& ObjectChoices::of(const Fact& fact) const {
  if (!fact.relation) return all_;
  const auto found = by_relation_.find(*fact.relation);
  return found == by_relation_.end() ? none_ : found->second;
}

bool ProbeResult::said() const {
  return !wordings.empty() && wordings.front().said;
}

std::int64_t ProbeResult::said_in() const {
  return std::count_if(wordings.begin(), wordings.end(), [](const auto& wording) { return wording.said; });
}

std::int64_t ProbeResult::choice_in() const {
  return std::count_if(wordings.begin(), wordings.end(), [](const auto& wording) { return wording.choice_rank == 1; });
}

std::int64_t ProbeResult::best_rank() const {
  std::int64_t best = 0;
  for (const auto& wording : wordings) best = best == 0 ? wording.rank : std::min(best, wording.rank);
  return best;
}

std::int64_t wordings_that_count(const ProbeResult& result, const KnownRule& rule) {
  return std::count_if(result.wordings.begin(), result.wordings.end(),
                       [&](const ProbedWording& wording) { return fulfils(wording, rule); });
}

bool has_enough_wordings(const ProbeResult& result, const KnownRule& rule) {
  return static_cast<std::int64_t>(result.wordings.size()) >= rule.wordings;
}

bool is_known(const ProbeResult& result, const KnownRule& rule) {
  return result.status == ProbeResult::Status::kProbed && wordings_that_count(result, rule) >= rule.wordings;
}

std::string reason_not_known(const ProbeResult& result, const KnownRule& rule) {
  if (result.status != ProbeResult::Status::kProbed) return "it could not be probed: " + result.reason;
  const auto wordings = static_cast<std::int64_t>(result.wordings.size());
  const auto asked = " (" + to_string(rule) + ": " + describe(rule) + ")";
  if (!has_enough_wordings(result, rule)) {
    return "it has " + count_of(wordings, "wording") + ", fewer than the rule asks for" + asked;
  }
  return "the object comes out in " + std::to_string(wordings_that_count(result, rule)) + " of " +
         count_of(wordings, "wording") + asked;
}

std::int64_t probe_chunk(const Decoder& model, std::span<const Fact* const> facts) {
  constexpr double kWork = 2e12;     // floating-point operations, 10 to 20 seconds of two cores
  constexpr double kOfWording = 20;  // for each parameter: two of each of some ten tokens
  constexpr std::int64_t kLeast = 64, kMost = ProbeOptions().chunk_facts;
  std::int64_t wordings = 0;
  for (const auto* fact : facts) wordings += std::ssize(fact->wordings);
  if (wordings == 0) return kLeast;
  const double each = static_cast<double>(wordings) / static_cast<double>(facts.size());
  if (model.streamed()) return kMost;  // a chunk reads all layers
  return static_cast<std::int64_t>(
      std::clamp(kWork / (kOfWording * static_cast<double>(model.parameter_count()) * each),
                 static_cast<double>(kLeast), static_cast<double>(kMost)));
}

namespace {

void probe_study(const Study& study, std::span<const Fact* const> facts, const ProbeSink& sink) {
  const at::NoGradGuard no_grad;
  const auto& control = study.control;
  const auto wordings_of = [](std::span<const Fact* const> some) {
    std::int64_t wordings = 0;
    for (const auto* fact : some) wordings += static_cast<std::int64_t>(fact->wordings.size());
    return wordings;
  };
  const auto total = control.progress ? wordings_of(facts) : 0;
  const auto tell = [&](std::int64_t wordings) {
    if (control.progress) control.progress(wordings, total);
  };
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(1, study.options.chunk_facts));
  const auto at_once = most * static_cast<std::size_t>(study.has_several() ? study.models->count() : 1);
  std::int64_t before = 0;  // wordings of the chunks that are finished
  for (std::size_t begin = 0; begin < facts.size(); begin += at_once) {
    study.stop_if_asked();
    const auto part = facts.subspan(begin, std::min(at_once, facts.size() - begin));
    std::vector<std::unique_ptr<ProbeChunk>> chunks;
    std::vector<std::pair<ProbeChunk*, ProbeChunk::Batch>> batches;
    for (std::size_t first = 0; first < part.size(); first += most) {
      auto& chunk = chunks.emplace_back(
          std::make_unique<ProbeChunk>(study, part.subspan(first, std::min(most, part.size() - first))));
      for (const auto& batch : chunk->batches()) batches.emplace_back(chunk.get(), batch);
    }
    std::int64_t inside = 0;
    std::mutex telling;
    const auto run = [&](std::int64_t i, const Decoder& model) {
      const auto& [chunk, batch] = batches[static_cast<std::size_t>(i)];
      chunk->run_batch(model, batch);
      const std::scoped_lock lock(telling);
      tell(before + (inside += std::ssize(batch)));
    };
    if (study.has_several()) {
      study.models->share(std::ssize(batches), run);
    } else {
      share(study.workers(), std::ssize(batches), [&](std::int64_t i) { run(i, study.model); });
    }
    before += wordings_of(part);  // those of facts that fail are run by nobody
    tell(before);
    std::size_t place = begin;
    for (const auto& chunk : chunks) {
      auto results = chunk->take_results();
      for (auto& result : results) sink(place++, std::move(result));
    }
  }
}

}  // namespace

void probe_facts(const Replicas& models, const Tokenizer& tokenizer, const ObjectChoices& choices,
                 std::span<const Fact* const> facts, const ProbeOptions& options, const RunControl& control,
                 const ProbeSink& sink) {
  probe_study({models.first(), &models, tokenizer, choices, options, control}, facts, sink);
}

void probe_facts(const Decoder& model, const Tokenizer& tokenizer, const ObjectChoices& choices,
                 std::span<const Fact* const> facts, const ProbeOptions& options, const RunControl& control,
                 const ProbeSink& sink) {
  probe_study({model, nullptr, tokenizer, choices, options, control}, facts, sink);
}

std::vector<ProbeResult> probe_facts(const Decoder& model, const Tokenizer& tokenizer, const ObjectChoices& choices,
                                     std::span<const Fact* const> facts, const ProbeOptions& options,
                                     const RunControl& control) {
  std::vector<ProbeResult> results;
  probe_facts(model, tokenizer, choices, facts, options, control,
              [&](std::size_t, ProbeResult&& result) { results.push_back(std::move(result)); });
  return results;
}

}  // namespace rometrace

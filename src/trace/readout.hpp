#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/clean_run.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What is asked of every run of one prompt.
struct Question {
  std::vector<std::int32_t> answer;         ///< [K]
  std::vector<std::int32_t> other_targets;  ///< one token each
  std::optional<std::int32_t> foil;
  at::Tensor clean_log_probabilities;  ///< [V] in double; read for kKl only

  Question() = default;
  Question(const TracePrompt& prompt, const CleanRun& clean);
};

/// Reads the head for runs of several questions, all of the same K and with the same number of other targets. What the
/// questions say is on the model's device from the start, so that reading waits for nothing; several threads may read.
///
/// Logits are taken slice by slice of the vocabulary, so that no [R, V] is stored.
class Readout {
 public:
  Readout(const Decoder& model, std::span<const Question> questions, std::span<const Reading> readings);

  std::int64_t width() const { return 1 + static_cast<std::int64_t>(readings_.size()); }

  /// `hidden` [R, K, E], as leave() gives it, holds the positions of R runs that say the answer; `question_of` [R],
  /// int64, is the question of each. The result, [R, width] in double: of each run the answer's probability, then the
  /// readings.
  at::Tensor operator()(const at::Tensor& hidden, const at::Tensor& question_of) const;

 private:
  std::vector<at::Tensor> columns(const at::Tensor& hidden, const at::Tensor& question_of) const;

  const Decoder& model_;
  std::vector<Reading> readings_;
  at::Tensor tokens_;  // [questions, 2 + other targets + K - 1]: the answer's first token, the foil, the other targets,
                       // the answer's later tokens
  at::Tensor clean_;   // [questions, V], their clean distributions, and ...
  at::Tensor entropy_;  // ... [questions] their negative entropies; undefined without kKl
};

/// The same as a list on the host, [R, 1 + readings] row by row: `questions[ question_of[r]]` is the question of run r.
std::vector<double> read_out(const Decoder& model, const at::Tensor& hidden, std::span<const Question> questions,
                             std::span<const std::int64_t> question_of, std::span<const Reading> readings);

/// The same of one question, from all logits, [R, K, V]; by their definitions, step by step.
std::vector<double> read_logits(const at::Tensor& logits, const Question& question, std::span<const Reading> readings);

}  // namespace rometrace

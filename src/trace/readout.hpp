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

/// Reads the head. `hidden` [R, K, D], as leave() gives it, holds the positions of R runs that say the answer;
/// `questions[ question_of[r]]` is the question of run r, all of the same K and with the same number of other targets.
/// The result, [R, 1 + readings]: of each run the answer's probability, then the readings.
///
/// Logits are taken slice by slice of the vocabulary, so that no [R, V] is stored.
std::vector<double> read_out(const Decoder& model, const at::Tensor& hidden, std::span<const Question> questions,
                             std::span<const std::int64_t> question_of, std::span<const Reading> readings);

/// The same of one question, from all logits, [R, K, V]; by their definitions, step by step.
std::vector<double> read_logits(const at::Tensor& logits, const Question& question, std::span<const Reading> readings);

}  // namespace rometrace

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// How probable an object is behind a prompt.
struct ObjectScore {
  std::vector<double> log_p;  ///< [K], of each token, those before it given; nats

  double nll() const;            ///< mean of -log_p: nats a token
  double probability() const;    ///< of the whole object: the product over its tokens
  double mean_by_token() const;  ///< exp(-nll), the geometric mean over tokens: "probability" in ROME's evaluation
};

/// A prompt's answers in one model.
struct PromptMeasure {
  ObjectScore new_object, true_object;
  std::int32_t top_id = 0;  ///< the most probable next token
  double top_probability = 0;
  std::vector<std::int32_t> greedy;  ///< what the model goes on with

  /// Whether the new object is more probable than the true one, by mean_by_token(). A tie is no.
  bool prefers_new() const { return new_object.nll() < true_object.nll(); }
};

/// Behind how many prompts the new object is preferred.
std::size_t count_of_new(std::span<const PromptMeasure> measures);

/// What is read behind each prompt.
struct MeasureOptions {
  std::int64_t greedy_tokens = 10;              ///< 0: none
  std::function<bool(std::int32_t)> ends = {};  ///< which tokens end what the model says; none: no token
};

/// `prompts` are token ids, a prompt each. Texts run side by side, some at a time. Throws Error for a text that is too
/// long with its object, Interrupted.
std::vector<PromptMeasure> measure_prompts(const Decoder& model, std::span<const std::vector<std::int32_t>> prompts,
                                           std::span<const std::int32_t> new_object,
                                           std::span<const std::int32_t> true_object, const MeasureOptions& options,
                                           std::stop_token stop = {});

/// exp of the mean -log p of each token but the first of each text. Texts of one token say nothing; throws Error if
/// there is no other.
double perplexity(const Decoder& model, std::span<const std::vector<std::int32_t>> texts, std::stop_token stop = {});

/// What became of an edit.
enum class EditOutcome {
  kTook,            ///< p(new) > p(true) on the bare prompt
  kBehindPrefixes,  ///< not there, but behind most templates
  kNoEffect,        ///< neither
};
std::string_view to_string(EditOutcome outcome);  ///< "took", "took only behind prefixes", "no effect"

struct EditVerdict {
  EditOutcome outcome = EditOutcome::kNoEffect;
  std::vector<std::size_t> leaks;  ///< neighbours where p(new) > p(true), and before it was not so
};

/// p is ObjectScore::mean_by_token(), which does not favour short objects. `prompt` has the bare prompt's measure
/// after the edit; `behind` those behind templates; `before` and `after` are the neighbours'.
EditVerdict verdict_of(const PromptMeasure& prompt, std::span<const PromptMeasure> behind,
                       std::span<const PromptMeasure> before, std::span<const PromptMeasure> after);

}  // namespace rometrace

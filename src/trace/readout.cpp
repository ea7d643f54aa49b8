#include "trace/readout.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace rometrace {
namespace {

constexpr std::int64_t kRows = 512;  // with a slice of the vocabulary, logits that stay in the cache

// What a pass over the vocabulary finds of each row, in double.
struct VocabularyRows {
  at::Tensor logits;          // [R, G] of the tokens asked for
  at::Tensor log_sum_exp;     // [R] of all logits, in two parts that are exact where their sum is not: the largest ...
  at::Tensor sum;             // ... and the sum of exp(logit - largest)
  at::Tensor expected_logit;  // [R], the mean of all logits under the row's weights; undefined without weights
};

// `ids` [R, G]; `weights` [J, V], of which row r takes row `weights_of`[r].
VocabularyRows read_rows(const Decoder& model, const at::Tensor& rows, const at::Tensor& ids, const at::Tensor& weights,
                         const at::Tensor& weights_of) {
  const auto& head = model.head();
  const auto R = rows.size(0);
  const auto options = at::device(rows.device()).dtype(at::kDouble);
  auto largest = at::full({R, 1}, -std::numeric_limits<double>::infinity(), options);
  auto sum = at::zeros({R, 1}, options);
  auto found = at::zeros(ids.sizes(), options);
  auto expected = weights.defined() ? at::zeros({R}, options) : at::Tensor();
  auto in_slice = ids;  // counted from the slice's first token
  std::int64_t first = 0;
  for (std::size_t part = 0; part < head.parts(); ++part) {
    auto logits = head.logits(rows, part);  // [R, width]
    const auto width = logits.size(1);
    const auto candidates = logits.gather(1, in_slice.clamp(0, width - 1)).to(at::kDouble);  // logits will change
    found = at::where((in_slice >= 0).logical_and(in_slice < width), candidates, found);
    in_slice = in_slice - width;
    if (weights.defined()) {
      const auto part_weights = weights.slice(1, first, first + width);
      const auto of_rows = weights.size(0) == 1 ? part_weights : part_weights.index_select(0, weights_of);
      expected += (logits.to(at::kDouble) * of_rows).sum(1);
    }
    first += width;
    const auto slice_largest = at::amax(logits, {1}, /*keepdim=*/true);
    const auto slice_sum = logits.sub_(slice_largest).exp_().sum(1, /*keepdim=*/true).to(at::kDouble);
    const auto new_largest = at::maximum(largest, slice_largest.to(at::kDouble));
    sum = sum * at::exp(largest - new_largest) + slice_sum * at::exp(slice_largest.to(at::kDouble) - new_largest);
    largest = new_largest;
  }
  return {found, largest.squeeze(1), sum.squeeze(1), expected};
}

// How many logits of each row are larger than the one given, [R].
at::Tensor count_larger(const Decoder& model, const at::Tensor& rows, const at::Tensor& logits) {
  const auto& head = model.head();
  auto count = at::zeros({rows.size(0)}, at::device(rows.device()).dtype(at::kLong));
  for (std::size_t part = 0; part < head.parts(); ++part) {
    count += (head.logits(rows, part).to(at::kDouble) > logits.unsqueeze(1)).sum(1);
  }
  return count;
}

bool asks(std::span<const Reading> readings, Measure measure) {
  return std::any_of(readings.begin(), readings.end(), [&](const auto& reading) { return reading.measure == measure; });
}

}  // namespace

Question::Question(const TracePrompt& prompt, const CleanRun& clean)
    : answer(clean.trace.answer_ids),
      other_targets(prompt.other_targets),
      foil(prompt.foil),
      clean_log_probabilities(clean.log_probabilities) {}

Readout::Readout(const Decoder& model, std::span<const Question> questions, std::span<const Reading> readings)
    : model_(model), readings_(readings.begin(), readings.end()) {
  std::vector<std::int64_t> tokens;
  for (const auto& question : questions) {
    tokens.push_back(question.answer.front());
    tokens.push_back(question.foil.value_or(question.answer.front()));
    tokens.insert(tokens.end(), question.other_targets.begin(), question.other_targets.end());
    tokens.insert(tokens.end(), question.answer.begin() + 1, question.answer.end());
  }
  tokens_ = at::tensor(tokens).view({static_cast<std::int64_t>(questions.size()), -1}).to(model.device());
  if (!asks(readings, Measure::kKl)) return;
  std::vector<at::Tensor> distributions, entropies;
  for (const auto& question : questions) {
    const auto& log_p = question.clean_log_probabilities;
    distributions.push_back(at::exp(log_p));
    entropies.push_back((at::exp(log_p) * log_p).nansum());  // 0 log 0 = 0
  }
  clean_ = at::stack(distributions).to(model.device());
  entropy_ = at::stack(entropies).to(model.device());
}

at::Tensor Readout::operator()(const at::Tensor& hidden, const at::Tensor& question_of) const {
  TORCH_INTERNAL_ASSERT(question_of.size(0) == hidden.size(0), "a run needs a question");
  std::vector<at::Tensor> tables;
  for (std::int64_t begin = 0; begin < hidden.size(0); begin += kRows) {
    const auto some = [&](const at::Tensor& runs) { return runs.slice(0, begin, begin + kRows); };
    tables.push_back(at::stack(columns(some(hidden), some(question_of)), 1));
  }
  return tables.size() == 1 ? tables.front() : at::cat(tables);
}

// A column of each reading, [R] in double.
std::vector<at::Tensor> Readout::columns(const at::Tensor& hidden, const at::Tensor& question_of) const {
  const auto K = hidden.size(1), of_answer = tokens_.size(1) - (K - 1);
  const auto tokens = tokens_.index_select(0, question_of);
  const auto after_prompt = hidden.select(1, 0);
  const auto head = read_rows(model_, after_prompt, tokens.slice(1, 0, of_answer), clean_, question_of);
  const auto logit = [&](std::int64_t token) { return head.logits.select(1, token); };
  const auto probability = [&](std::int64_t token) { return at::exp(logit(token) - head.log_sum_exp) / head.sum; };

  auto answer = probability(0);
  auto log_answer = logit(0) - head.log_sum_exp - at::log(head.sum);
  for (std::int64_t k = 1; k < K; ++k) {
    const auto token = tokens.slice(1, of_answer + k - 1, of_answer + k);
    const auto later = read_rows(model_, hidden.select(1, k), token, {}, {});
    const auto of_token = later.logits.select(1, 0) - later.log_sum_exp;
    answer = answer * at::exp(of_token) / later.sum;
    log_answer = log_answer + of_token - at::log(later.sum);
  }

  std::vector<at::Tensor> result = {answer};
  for (const auto& [measure, target] : readings_) {
    switch (measure) {
      case Measure::kProbability:
        result.push_back(target == 0 ? answer : probability(static_cast<std::int64_t>(target) + 1));
        break;
      case Measure::kLogProbability:
        result.push_back(log_answer);
        break;
      case Measure::kLogit:
        result.push_back(logit(0));
        break;
      case Measure::kLogitDifference:
        result.push_back(logit(0) - logit(1));
        break;
      case Measure::kRank:
        result.push_back(count_larger(model_, after_prompt, logit(0)).to(at::kDouble) + 1);
        break;
      case Measure::kKl: {
        const auto of_clean = entropy_.index_select(0, question_of);
        result.push_back((of_clean - head.expected_logit + head.log_sum_exp + at::log(head.sum)).clamp_min(0));
        break;
      }
      case Measure::kNormalised:
        TORCH_INTERNAL_ASSERT(false, "follows from other readings");
    }
  }
  return result;
}

std::vector<double> read_out(const Decoder& model, const at::Tensor& hidden, std::span<const Question> questions,
                             std::span<const std::int64_t> question_of, std::span<const Reading> readings) {
  const auto of_runs = at::tensor(question_of).to(model.device());
  const auto table = Readout(model, questions, readings)(hidden, of_runs).contiguous().cpu();
  return {table.const_data_ptr<double>(), table.const_data_ptr<double>() + table.numel()};
}

std::vector<double> read_logits(const at::Tensor& logits, const Question& question, std::span<const Reading> readings) {
  const auto all = logits.to(at::kDouble);
  const auto log_p = at::log_softmax(all, -1);  // [R, K, V]
  const auto after_prompt = all.select(1, 0);
  auto log_answer = at::zeros({all.size(0)}, all.options());
  for (std::size_t k = 0; k < question.answer.size(); ++k) {
    log_answer = log_answer + log_p.select(1, static_cast<std::int64_t>(k)).select(1, question.answer[k]);
  }
  const auto logit = after_prompt.select(1, question.answer.front());
  std::vector<at::Tensor> columns = {log_answer.exp()};
  for (const auto& [measure, target] : readings) {
    switch (measure) {
      case Measure::kProbability: {
        const auto id = target == 0 ? question.answer.front() : question.other_targets[target - 1];
        columns.push_back(target == 0 ? columns.front() : log_p.select(1, 0).select(1, id).exp());
        break;
      }
      case Measure::kLogProbability:
        columns.push_back(log_answer);
        break;
      case Measure::kLogit:
        columns.push_back(logit);
        break;
      case Measure::kLogitDifference:
        columns.push_back(logit - after_prompt.select(1, question.foil.value_or(question.answer.front())));
        break;
      case Measure::kRank:
        columns.push_back((after_prompt > logit.unsqueeze(1)).sum(1).to(at::kDouble) + 1);
        break;
      case Measure::kKl: {
        const auto clean = question.clean_log_probabilities.to(all.device());
        const auto terms = clean.exp() * (clean - log_p.select(1, 0));
        columns.push_back(at::where(clean.exp() > 0, terms, at::zeros_like(terms)).sum(1).clamp_min(0));
        break;
      }
      case Measure::kNormalised:
        TORCH_INTERNAL_ASSERT(false, "follows from other readings");
    }
  }
  const auto table = at::stack(columns, 1).contiguous().cpu();
  return {table.const_data_ptr<double>(), table.const_data_ptr<double>() + table.numel()};
}

}  // namespace rometrace

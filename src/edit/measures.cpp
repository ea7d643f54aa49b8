#include "rometrace/edit/measures.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "edit/row_batch.hpp"
#include "rometrace/edit/continuation.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
namespace {

using Ids = std::vector<std::int32_t>;

// Rows that go through the model together.
constexpr std::size_t kRows = 2048;
// Rows whose logits are held at once.
constexpr std::int64_t kLogitRows = 64;

// A text after whose last rows the next token is asked for.
struct Asked {
  Ids ids;
  std::int64_t from = 0;  // the first row that is read; all that follow are
};

// log p [rows, V] of all tokens after rows that are read, text by text; `row` counts from a text's first that is.
void read(const Decoder& model, std::span<const Asked> asked, const std::stop_token& stop,
          const std::function<void(std::size_t text, std::int64_t row, const at::Tensor& log_p)>& use) {
  for (std::size_t begin = 0, end = 0; begin < asked.size(); begin = end) {
    std::vector<Ids> ids;
    for (std::size_t rows = 0; end < asked.size() && (rows == 0 || rows + asked[end].ids.size() <= kRows); ++end) {
      ids.push_back(asked[end].ids);
      rows += asked[end].ids.size();
    }
    const auto batch = whole_texts(model, ids);
    const auto x = run_texts(
        model, batch, ids, model.config().layers, [](std::int64_t, const LayerRows&) {}, stop);
    for (std::size_t i = begin; i < end; ++i) {
      const auto first = batch.begin(i - begin) + asked[i].from;
      const auto count = static_cast<std::int64_t>(asked[i].ids.size()) - asked[i].from;
      for (std::int64_t row = 0; row < count; row += kLogitRows) {
        const auto rows = x.narrow(0, first + row, std::min(kLogitRows, count - row));
        use(i, row, at::log_softmax(model.logits(model.leave(rows)), -1, at::kDouble).cpu());
      }
    }
  }
}

// Adds what rows from `row` on say of an object.
void add_to(ObjectScore& score, std::int64_t row, const at::Tensor& log_p, std::span<const std::int32_t> object) {
  for (std::int64_t k = 0; k < log_p.size(0); ++k) {
    const auto place = static_cast<std::size_t>(row + k);
    if (place < object.size()) score.log_p.push_back(log_p[k][object[place]].item<double>());
  }
}

}  // namespace

double ObjectScore::nll() const {
  return -std::accumulate(log_p.begin(), log_p.end(), 0.0) / static_cast<double>(log_p.size());
}

double ObjectScore::probability() const {
  return std::exp(std::accumulate(log_p.begin(), log_p.end(), 0.0));
}

double ObjectScore::mean_by_token() const {
  return std::exp(-nll());
}

std::vector<PromptMeasure> measure_prompts(const Decoder& model, std::span<const Ids> prompts,
                                           std::span<const std::int32_t> new_object,
                                           std::span<const std::int32_t> true_object, const MeasureOptions& options,
                                           std::stop_token stop) {
  const at::NoGradGuard no_grad;
  std::vector<PromptMeasure> measures(prompts.size());
  std::vector<Asked> asked;
  for (const auto& prompt : prompts) {
    for (const auto object : {new_object, true_object}) {
      Asked text{prompt, static_cast<std::int64_t>(prompt.size()) - 1};
      if (!object.empty()) text.ids.insert(text.ids.end(), object.begin(), object.end() - 1);
      asked.push_back(std::move(text));
    }
  }
  read(model, asked, stop, [&](std::size_t text, std::int64_t row, const at::Tensor& log_p) {
    auto& measure = measures[text / 2];
    const bool of_new = text % 2 == 0;
    add_to(of_new ? measure.new_object : measure.true_object, row, log_p, of_new ? new_object : true_object);
    if (!of_new || row > 0) return;
    measure.top_id = log_p[0].argmax().item<std::int32_t>();
    measure.top_probability = std::exp(log_p[0][measure.top_id].item<double>());
  });
  if (options.greedy_tokens > 0) {
    auto said = continue_greedily(model, prompts, options.greedy_tokens, options.ends, stop);
    for (std::size_t i = 0; i < measures.size(); ++i) measures[i].greedy = std::move(said[i]);
  }
  return measures;
}

double perplexity(const Decoder& model, std::span<const Ids> texts, std::stop_token stop) {
  const at::NoGradGuard no_grad;
  std::vector<Asked> asked;
  for (const auto& text : texts) {
    if (text.size() > 1) asked.push_back({Ids(text.begin(), text.end() - 1), 0});
  }
  if (asked.empty()) throw Error("no text has two tokens; a perplexity is of tokens that follow others");
  double sum = 0;
  std::size_t tokens = 0;
  std::vector<const Ids*> whole;
  for (const auto& text : texts) {
    if (text.size() > 1) whole.push_back(&text);
  }
  read(model, asked, stop, [&](std::size_t text, std::int64_t row, const at::Tensor& log_p) {
    ObjectScore score;
    add_to(score, row, log_p, std::span(*whole[text]).subspan(1));
    sum -= std::accumulate(score.log_p.begin(), score.log_p.end(), 0.0);
    tokens += score.log_p.size();
  });
  return std::exp(sum / static_cast<double>(tokens));
}

std::size_t count_of_new(std::span<const PromptMeasure> measures) {
  const auto count =
      std::count_if(measures.begin(), measures.end(), [](const auto& each) { return each.prefers_new(); });
  return static_cast<std::size_t>(count);
}

std::string_view to_string(EditOutcome outcome) {
  switch (outcome) {
    case EditOutcome::kTook:
      return "took";
    case EditOutcome::kBehindPrefixes:
      return "took only behind prefixes";
    case EditOutcome::kNoEffect:
      return "no effect";
  }
  return "unknown";
}

EditVerdict verdict_of(const PromptMeasure& prompt, std::span<const PromptMeasure> behind,
                       std::span<const PromptMeasure> before, std::span<const PromptMeasure> after) {
  EditVerdict verdict;
  if (prompt.prefers_new()) {
    verdict.outcome = EditOutcome::kTook;
  } else if (2 * count_of_new(behind) > behind.size()) {
    verdict.outcome = EditOutcome::kBehindPrefixes;
  }
  for (std::size_t i = 0; i < after.size(); ++i) {
    if (after[i].prefers_new() && !before[i].prefers_new()) verdict.leaks.push_back(i);
  }
  return verdict;
}

}  // namespace rometrace

#include "rometrace/report/edit_text.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "report/display_text.hpp"
#include "report/palette.hpp"
#include "report/table_text.hpp"
#include "rometrace/report/edit_json.hpp"
#include "rometrace/text/strip.hpp"

namespace rometrace {
namespace {

constexpr int kPercentColumns = 7;  // "100.00 "

std::string with_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

class EditTable {
 public:
  EditTable(const Tokenizer& tokenizer, const TerminalStyle& style) : tokenizer_(tokenizer), style_(style) {
    const int texts = style.columns - 4 * kPercentColumns - 4;  // what numbers and gaps leave to three texts
    said_ = std::clamp(texts / 5, 8, 20);
    prompt_ = std::max(12, texts - 2 * said_);
    narrow_ = style.columns < 4 * kPercentColumns + 4 + 2 * 8 + 12;
  }

  std::string of_fact(const EditedFact& fact) const {
    auto text = heading(fact);
    if (narrow_) {
      text += narrow("prompt", fact.prompt);
    } else {
      text += row("", "before", "", "", "after", "", "");
      text += row("", "new %", "old %", "says", "new %", "old %", "says");
      text += row(fact.prompt);
    }
    const auto list = [&](const char* name, const std::vector<MeasuredPrompt>& prompts) {
      if (prompts.empty()) return;
      if (!narrow_) text += std::string(name) + "\n";
      for (const auto& prompt : prompts) text += narrow_ ? narrow(name, prompt) : row(prompt);
    };
    list("paraphrases", fact.paraphrases);
    list("neighbours", fact.neighbours);
    return text + sentence("verdict: " + verdict_text(fact) + behind(fact));
  }

  std::string sentence(const std::string& text) const { return wrap(text, style_.columns, kSentenceIndent); }

 private:
  std::string shown(std::string_view text) const { return display(text, {.unicode = style_.unicode}).text; }

  std::string heading(const EditedFact& fact) const {
    return sentence("new: " + shown(strip(fact.request.target)) + ", old: " + shown(strip(fact.true_object)) +
                    " (percent: the mean by token, after each prompt)");
  }

  static std::string behind(const EditedFact& fact) {
    if (fact.behind.empty()) return "";
    return "; says it behind " + std::to_string(count_of_new(fact.behind)) + " of " +
           std::to_string(fact.behind.size()) + " prefixes";
  }

  std::string says(const PromptMeasure& measure) const {
    std::string text;
    auto ids = measure.greedy;
    if (ids.empty()) ids = {measure.top_id};
    for (const auto id : ids) text += id < tokenizer_.size() ? tokenizer_.token_bytes(id) : "";
    return display_head(strip(text), said_, {.unicode = style_.unicode}).text;
  }

  std::string row(const MeasuredPrompt& prompt) const {
    const auto& [text, before, after] = prompt;
    return row("  " + display_head(text, prompt_ - 2, {.unicode = style_.unicode}).text,
               percent(before.new_object.mean_by_token()), percent(before.true_object.mean_by_token()), says(before),
               percent(after.new_object.mean_by_token()), percent(after.true_object.mean_by_token()), says(after));
  }

  std::string row(const std::string& prompt, const std::string& new_before, const std::string& old_before,
                  const std::string& said_before, const std::string& new_after, const std::string& old_after,
                  const std::string& said_after) const {
    return trimmed(padded(prompt, prompt_) + right(new_before, kPercentColumns) + right(old_before, kPercentColumns) +
                   "  " + padded(said_before, said_) + right(new_after, kPercentColumns) +
                   right(old_after, kPercentColumns) + "  " + said_after);
  }

  static std::string padded(const std::string& text, int columns) {
    return text + std::string(static_cast<std::size_t>(std::max(0, columns - columns_of(text))), ' ');
  }

  // Where a table has no room.
  std::string narrow(const std::string& name, const MeasuredPrompt& prompt) const {
    const auto& [text, before, after] = prompt;
    return sentence(name + ": " + shown(text) + ": new " + percent(before.new_object.mean_by_token()) + " to " +
                    percent(after.new_object.mean_by_token()) + ", old " + percent(before.true_object.mean_by_token()) +
                    " to " + percent(after.true_object.mean_by_token()) + "; says " + says(after));
  }

  const Tokenizer& tokenizer_;
  TerminalStyle style_;
  int prompt_ = 0, said_ = 0;
  bool narrow_ = false;
};

}  // namespace

std::string render_edit(std::span<const EditedFact> facts, const std::string& head,
                        const std::optional<EditPerplexity>& perplexity, const Tokenizer& tokenizer,
                        const TerminalStyle& style) {
  auto usable = style;
  usable.columns = std::max(kNarrowestText, style.columns);
  const EditTable text(tokenizer, usable);
  auto result = text.sentence(head);
  for (const auto& fact : facts) result += "\n" + text.of_fact(fact);
  if (perplexity) {
    result += text.sentence("perplexity of " + display(perplexity->text, {.unicode = usable.unicode}).text + ": " +
                            with_digits(perplexity->before) + " before, " + with_digits(perplexity->after) + " after");
  }
  return result;
}

}  // namespace rometrace

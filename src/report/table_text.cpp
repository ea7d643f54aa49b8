#include "report/table_text.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "report/display_text.hpp"

namespace rometrace {
namespace {

std::string spaces(int columns) {
  return std::string(static_cast<std::size_t>(std::max(0, columns)), ' ');
}

}  // namespace

std::string percent(double value) {
  std::array<char, 64> digits{};
  const auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), 100 * value, std::chars_format::fixed, 2).ptr;
  const std::string text(digits.data(), end);
  return text == "-0.00" ? "0.00" : text;
}

std::string right(std::string_view text, int columns) {
  return spaces(columns - columns_of(text)) + std::string(text);
}

std::string left(std::string_view text, int columns) {
  return std::string(text) + spaces(columns - columns_of(text));
}

std::string interval(const std::optional<Bounds>& value) {
  constexpr int kNumber = 6;
  return value ? "[" + right(percent(value->low), kNumber) + ", " + right(percent(value->high), kNumber) + "]" : "";
}

std::optional<Bounds> interval_of(const Estimate& estimate) {
  return estimate.bootstrap ? estimate.bootstrap : estimate.normal;
}

std::string interval_words(const SummaryConfig& config) {
  return config.replicates > 0 ? "bootstrap, " + std::to_string(config.replicates) + " replicates" : "normal";
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string_view words_for_kind(std::string_view kind) {
  struct Words {
    std::string_view kind, words;
  };
  constexpr std::array kWords = {Words{"state", "the block's output"},
                                 Words{"mlp", "the MLP's output"},
                                 Words{"attn", "the attention's output"},
                                 Words{"head", "one attention head's output"},
                                 Words{"state_mlp_severed", "the block's output, MLP severed,"},
                                 Words{"state_attn_severed", "the block's output, attention severed,"}};
  const auto found = std::find_if(kWords.begin(), kWords.end(), [&](const auto& each) { return each.kind == kind; });
  return found == kWords.end() ? "its output" : found->words;
}

std::string layers_of(std::int64_t window) {
  return window > 1 ? " in " + std::to_string(window) + " layers around each layer" : " at one layer";
}

}  // namespace rometrace

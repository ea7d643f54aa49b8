#include "rometrace/edit/templates.hpp"

#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "rometrace/edit/continuation.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/strip.hpp"
#include "rometrace/text/subject.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/trace/noise.hpp"

namespace rometrace {
namespace {

constexpr std::int64_t kMostProbable = 5;

// Draws `tokens` more for each text.
std::vector<std::vector<std::int32_t>> go_on(const Decoder& model, const std::vector<std::vector<std::int32_t>>& texts,
                                             std::int64_t tokens, RandomState& random, const std::stop_token& stop) {
  auto grown = texts;
  Continuation going(model, texts, stop);
  const auto most = std::min(kMostProbable, model.config().vocab_size);
  for (std::int64_t step = 0; step < tokens && going.longest() < model.config().max_positions; ++step) {
    const auto [scores, ids] = at::topk(going.logits().to(at::kDouble).cpu(), most);
    const auto probabilities = at::softmax(scores, -1);
    std::vector<std::int32_t> next;
    for (std::size_t i = 0; i < grown.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      double left = random.random_sample();
      std::int64_t chosen = 0;
      while (chosen + 1 < most && left >= probabilities[row][chosen].item<double>()) {
        left -= probabilities[row][chosen++].item<double>();
      }
      next.push_back(ids[row][chosen].item<std::int32_t>());
      grown[i].push_back(next.back());
    }
    if (step + 1 < tokens && going.longest() < model.config().max_positions) going.append(next);
  }
  return grown;
}

// White space as single spaces, without brackets that a template would take for its place.
std::string tidied(const std::string& text) {
  std::string tidy;
  for (const char c : text) {
    if (c == '{' || c == '}') continue;
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space) tidy += c;
    if (space && !tidy.empty() && tidy.back() != ' ') tidy += ' ';
  }
  return std::string(strip(tidy));
}

// <|endoftext|> and its like, which have no place in a prompt.
std::vector<std::int32_t> without(std::vector<std::int32_t> ids, std::int32_t start) {
  std::erase(ids, start);
  return ids;
}

// The token that opens a text.
std::int32_t start_of_text(const Decoder& model, const Tokenizer& tokenizer) {
  if (const auto prefix = tokenizer.prefix_ids(); !prefix.empty()) return prefix.front();
  for (const auto* name : {"<|endoftext|>", "</s>", "<s>", "<|begin_of_text|>"}) {
    const auto tokens = tokenizer.encode(name, SpecialTokens::kParse);
    if (tokens.size() == 1 && tokens.front().id < model.config().vocab_size) return tokens.front().id;
  }
  throw Error(
      "the tokeniser has no token that opens a text, so the model cannot make prefixes by itself; give them by "
      "--templates FILE, or --templates none");
}

}  // namespace

std::vector<std::string> generate_templates(EditMethod method, const Decoder& model, const Tokenizer& tokenizer,
                                            std::uint32_t seed, std::stop_token stop) {
  RandomState random(seed);
  std::vector<std::string> templates;
  const auto add = [&](const std::vector<std::int32_t>& ids) {
    const auto text = tidied(tokenizer.decode(ids));
    if (text.empty() || find_invalid_utf8(text)) return;
    auto made = text + ". {}";
    if (std::find(templates.begin(), templates.end(), made) == templates.end()) templates.push_back(std::move(made));
  };
  if (method == EditMethod::kMemit) {
    constexpr std::int64_t kTokens = 10;
    for (const auto* starter : {"The", "Therefore", "Because", "I", "You"}) {
      const auto tokens = ids_of(tokenizer.encode_prompt(starter));
      const auto missing = kTokens - static_cast<std::int64_t>(tokens.size() - tokenizer.prefix_ids().size());
      auto grown = go_on(model, {tokens}, missing, random, stop).front();
      grown.erase(grown.begin(), grown.begin() + static_cast<std::ptrdiff_t>(tokenizer.prefix_ids().size()));
      add(grown);
    }
    return templates;
  }
  const auto start = start_of_text(model, tokenizer);
  constexpr std::size_t kTexts = 10;
  for (const std::int64_t tokens : {4, 9}) {
    const std::vector<std::vector<std::int32_t>> texts(kTexts, {start});
    for (auto& grown : go_on(model, texts, tokens, random, stop)) add(without(std::move(grown), start));
  }
  return templates;
}

std::vector<std::string> read_templates(const std::filesystem::path& file) {
  std::istringstream lines(read_text_file(file, FileKind::kReadable));
  std::vector<std::string> templates;
  std::string line;
  for (std::int64_t number = 1; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line == kSubjectSlot) continue;
    if (const auto slots = occurrences_of(kSubjectSlot, line); slots != 1) {
      throw Error(label_of(file) + ", line " + std::to_string(number) + ": " + in_quotes(line) + " has " +
                  (slots == 0 ? "no {}" : std::to_string(slots) + " times {}") +
                  "; expected one, where the prompt goes");
    }
    templates.push_back(line);
  }
  return templates;
}

}  // namespace rometrace

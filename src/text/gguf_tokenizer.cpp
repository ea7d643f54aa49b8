#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/split_pattern.hpp"
#include "rometrace/text/utf8.hpp"
#include "text/as_text.hpp"
#include "text/backend.hpp"
#include "text/bpe_tokens.hpp"
#include "text/gguf_header.hpp"
#include "text/mapping.hpp"
#include "text/piece_writer.hpp"

namespace rometrace {
namespace {

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";
constexpr const char* kMergesKey = "tokenizer.ggml.merges";
constexpr const char* kPreKey = "tokenizer.ggml.pre";
constexpr const char* kBosKey = "tokenizer.ggml.bos_token_id";
constexpr const char* kAddBosKey = "tokenizer.ggml.add_bos_token";
constexpr const char* kSpacePrefixKey = "tokenizer.ggml.add_space_prefix";
constexpr const char* kUnknownKey = "tokenizer.ggml.unknown_token_id";

/// A list of the file that has an element for each token.
template <typename List>
void check_length(const GgufHeader& header, const char* key, const List& list, std::size_t tokens) {
  if (list.size() == tokens) return;
  header.refuse(key, "expected one for each of " + std::to_string(tokens) + " tokens");
}

std::vector<std::string_view> tokens_of(const GgufHeader& header) {
  const auto tokens = header.texts(kTokensKey);
  if (!tokens) throw Error(header.where() + ": has no " + kTokensKey + "; expected a file with its tokeniser");
  const auto size = tokens->size();
  if (size < 1 || size > static_cast<std::size_t>(kMaxTokens)) {
    header.refuse(kTokensKey, "expected 1 to " + std::to_string(kMaxTokens));
  }
  return *tokens;
}

/// What each token is for; the format's numbers are SentencePiece's.
std::vector<PieceType> types_of(const GgufHeader& header, std::size_t tokens) {
  const auto numbers = header.whole_numbers(kTypesKey);
  if (!numbers) return std::vector<PieceType>(tokens, PieceType::kNormal);
  check_length(header, kTypesKey, *numbers, tokens);
  std::vector<PieceType> types;
  for (const auto number : *numbers) {
    if (number < 1 || number > static_cast<std::int64_t>(PieceType::kByte)) {
      throw Error(header.where() + ": " + kTypesKey + " has " + std::to_string(number) + "; expected 1 to 6");
    }
    types.push_back(static_cast<PieceType>(number));
  }
  return types;
}

/// The token of a key that holds an id; nothing where there is none.
std::optional<std::int32_t> id_of(const GgufHeader& header, const char* key, std::size_t tokens) {
  const auto id = header.whole_number(key);
  if (!id) return std::nullopt;
  if (*id >= 0 && static_cast<std::size_t>(*id) < tokens) return static_cast<std::int32_t>(*id);
  header.refuse(key, "expected 0 to " + std::to_string(tokens - 1));
}

// ---- Byte-level BPE ----

// Stages that cut text, as the original tokenisers of these names have them.
constexpr std::string_view kWordsAndSigns = R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kContractionsAndWords = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBloomPattern = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
// Falcon's: punctuation as tokenizers has it, and, behind GPT-2's split, digits by threes. The original parts digits
// from a space before them as well, which no merge of its own joins.
constexpr std::string_view kPunctuationRuns = R"([\p{P}$+<=>^`|~]+)", kThreeDigits = "[0-9][0-9][0-9]";

enum class Splits { kGpt2, kDigitsThenGpt2, kLlama3, kQwen2, kTekken, kGpt4o, kFalcon, kBloom };

/// How the tokenisers of a name (tokenizer.ggml.pre) split text.
struct Pre {
  std::string_view name;
  Splits splits;
  bool composes = false;     ///< text is put into NFC first
  bool whole_parts = false;  ///< "ignore_merges"
  bool begins = false;       ///< the begin-of-text token goes before a prompt, unless the file says otherwise
};

constexpr std::array<Pre, 26> kPres = {{
    {.name = "gpt-2", .splits = Splits::kGpt2},
    {.name = "phi-2", .splits = Splits::kGpt2},
    {.name = "olmo", .splits = Splits::kGpt2, .composes = true},  // GPT-NeoX's, as the next one
    {.name = "mpt", .splits = Splits::kGpt2, .composes = true},
    {.name = "smollm", .splits = Splits::kDigitsThenGpt2},
    {.name = "starcoder", .splits = Splits::kDigitsThenGpt2},
    {.name = "refact", .splits = Splits::kDigitsThenGpt2},
    {.name = "command-r", .splits = Splits::kDigitsThenGpt2, .composes = true},
    {.name = "llama3", .splits = Splits::kLlama3, .whole_parts = true, .begins = true},
    {.name = "llama-v3", .splits = Splits::kLlama3, .whole_parts = true, .begins = true},
    {.name = "llama-bpe", .splits = Splits::kLlama3, .whole_parts = true, .begins = true},
    {.name = "falcon3", .splits = Splits::kLlama3, .whole_parts = true, .begins = true},
    {.name = "smaug-bpe", .splits = Splits::kLlama3},
    {.name = "dbrx", .splits = Splits::kLlama3},
    {.name = "chatglm-bpe", .splits = Splits::kLlama3},
    {.name = "glm4", .splits = Splits::kLlama3, .whole_parts = true},
    {.name = "qwen2", .splits = Splits::kQwen2, .composes = true},
    {.name = "deepseek-r1-qwen", .splits = Splits::kQwen2, .composes = true},
    {.name = "stablelm2", .splits = Splits::kQwen2, .composes = true},
    {.name = "tekken", .splits = Splits::kTekken, .whole_parts = true, .begins = true},
    {.name = "gpt-4o", .splits = Splits::kGpt4o},
    {.name = "llama4", .splits = Splits::kGpt4o},
    {.name = "falcon", .splits = Splits::kFalcon},
    {.name = "bloom", .splits = Splits::kBloom},
    {.name = "poro-chat", .splits = Splits::kBloom},
    {.name = "gpt3-finnish", .splits = Splits::kBloom},
}};

/// The name of all models of an architecture, for files that were made before there were names.
struct OlderName {
  std::string_view architecture, name;
};

constexpr std::array<OlderName, 10> kOlderNames = {{
    {"gpt2", "gpt-2"},
    {"gptneox", "mpt"},  // which has the same rules
    {"qwen2", "qwen2"},
    {"falcon", "falcon"},
    {"mpt", "mpt"},
    {"bloom", "bloom"},
    {"starcoder", "starcoder"},
    {"starcoder2", "starcoder"},
    {"phi2", "phi-2"},
    {"command-r", "command-r"},
}};

std::vector<SplitRule> rules_of(Splits splits, const std::string& where) {
  const auto one = [&](std::string_view pattern) { return SplitRule{to_pcre2(std::string(pattern), where)}; };
  const auto words = [&](std::string_view numbers) {
    return std::vector{one(std::string(kContractionsAndWords).append(numbers).append("|").append(kWordsAndSigns))};
  };
  switch (splits) {
    case Splits::kGpt2:
      return {gpt2_split()};
    case Splits::kDigitsThenGpt2:
      return {one(R"(\p{N})"), gpt2_split()};
    case Splits::kLlama3:
      return words(R"(\p{N}{1,3})");
    case Splits::kQwen2:
      return words(R"(\p{N})");
    case Splits::kTekken:
      return {one(kTekkenPattern)};
    case Splits::kGpt4o:
      return {one(kGpt4oPattern)};
    case Splits::kFalcon:
      return {one(kPunctuationRuns), gpt2_split(), one(kThreeDigits)};
    case Splits::kBloom:
      return {one(kBloomPattern)};
  }
  return {};
}

/// The entry of the file's name; of files that have none, that of all models of their architecture.
const Pre& pre_of(const GgufHeader& header) {
  auto name = header.text(kPreKey).value_or("default");
  if (name == "default") {
    const auto architecture = header.text("general.architecture").value_or("");
    const auto* older = std::ranges::find(kOlderNames, architecture, &OlderName::architecture);
    if (older != kOlderNames.end()) name = older->name;
  }
  const auto* found = std::ranges::find(kPres, name, &Pre::name);
  if (found != kPres.end()) return *found;
  if (!header.has(kPreKey)) {
    throw Error(header.where() + ": has no " + kPreKey +
                ", so that it does not say how text is split; expected a file that a newer llama.cpp has made");
  }
  std::string known;
  for (const auto& each : kPres) known += (known.empty() ? "" : ", ") + std::string(each.name);
  header.refuse(kPreKey, "expected one of " + known);
}

std::unique_ptr<const Backend> make_byte_level(const GgufHeader& header) {
  const auto& where = header.where();
  const auto texts = tokens_of(header);
  const auto types = types_of(header, texts.size());
  const auto merges = header.texts(kMergesKey);
  if (!merges) throw Error(where + ": has no " + kMergesKey + "; expected a file with its tokeniser");
  if (header.flag(kSpacePrefixKey).value_or(false))
    header.refuse(kSpacePrefixKey, "expected false, as it is of byte-level tokenisers");

  const auto& pre = pre_of(header);
  BpeRules rules;
  rules.splits = rules_of(pre.splits, where);
  if (pre.composes) rules.normalizer = BpeRules::Normalizer::kNfc;
  if (pre.whole_parts) rules.whole_parts = BpeRules::WholeParts::kAsTokens;
  if (header.flag(kAddBosKey).value_or(pre.begins)) {
    const auto bos = id_of(header, kBosKey, texts.size());
    if (!bos) throw Error(where + ": has no " + kBosKey + "; expected the token that goes before a prompt");
    rules.prefix_ids = {*bos};
  }

  std::vector<std::string> tokens;
  std::vector<AddedToken> added;
  for (std::size_t id = 0; id < texts.size(); ++id) {
    const bool is_special = types[id] == PieceType::kControl || types[id] == PieceType::kUnknown;
    tokens.emplace_back(types[id] == PieceType::kUnused ? std::string_view() : texts[id]);
    if (texts[id].empty() || (!is_special && types[id] != PieceType::kUserDefined)) continue;
    if (find_invalid_utf8(texts[id])) {
      throw Error(where + ": token " + std::to_string(id) + " is " + in_quotes(texts[id]) + "; expected UTF-8");
    }
    added.push_back({.content = tokens.back(), .id = static_cast<std::int32_t>(id), .special = is_special});
  }
  return make_byte_level_bpe(to_bpe_vocabulary(std::move(tokens), *merges, added, std::move(rules), where), where);
}

// ---- SentencePiece's BPE ----

/// The serialised model of which the file has tokens, scores and types.
std::string to_model(const GgufHeader& header, const std::vector<std::string_view>& tokens) {
  const auto& where = header.where();
  auto types = types_of(header, tokens.size());
  const auto scores = header.numbers(kScoresKey);
  if (!scores) throw Error(where + ": has no " + kScoresKey + "; expected a file with its tokeniser");
  check_length(header, kScoresKey, *scores, tokens.size());
  if (std::ranges::find(types, PieceType::kUnknown) == types.end()) {
    const auto unknown = id_of(header, kUnknownKey, tokens.size());
    if (!unknown) throw Error(where + ": has no " + kUnknownKey + "; expected the token of unknown characters");
    types[static_cast<std::size_t>(*unknown)] = PieceType::kUnknown;
  }

  ProtoWriter model;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!std::isfinite((*scores)[id])) {
      throw Error(where + ": " + kScoresKey + " of token " + std::to_string(id) + " is no number; expected one");
    }
    if (find_invalid_utf8(tokens[id])) {
      throw Error(where + ": token " + std::to_string(id) + " is " + in_quotes(tokens[id]) + "; expected UTF-8");
    }
    const bool is_empty = tokens[id].empty();
    std::string text = is_empty ? nameless_piece(id) : std::string(tokens[id]);
    // Converters write the spaces of such a token as they are; SentencePiece looks for it in marked text.
    if (types[id] == PieceType::kUserDefined) text = mark_spaces(text, InFront::kNothing).text();
    model.message(1, piece(text, (*scores)[id], is_empty ? PieceType::kControl : types[id]));
  }

  ProtoWriter trainer;
  trainer.number(3, 2);  // model_type: BPE
  const bool has_bytes = std::ranges::find(types, PieceType::kByte) != types.end();
  trainer.number(35, has_bytes ? 1 : 0);  // byte_fallback
  model.message(2, trainer);

  ProtoWriter normalizer;
  normalizer.bytes(1, "identity");
  if (const auto rules = header.bytes("tokenizer.ggml.precompiled_charsmap"); rules && !rules->empty()) {
    normalizer.bytes(2, as_text(*rules));
  }
  normalizer.number(3, header.flag(kSpacePrefixKey).value_or(true) ? 1 : 0);  // add_dummy_prefix
  normalizer.number(4, header.flag("tokenizer.ggml.remove_extra_whitespaces").value_or(false) ? 1 : 0);
  normalizer.number(5, 1);  // escape_whitespaces
  model.message(3, normalizer);
  return std::move(model).take();
}

std::unique_ptr<const Backend> make_sentencepiece(const GgufHeader& header) {
  const auto tokens = tokens_of(header);
  TokenizerConfig config;
  config.where = config.class_where = config.bos_where = config.added_where = header.where();
  config.add_bos_token = header.flag(kAddBosKey).value_or(true);
  if (*config.add_bos_token) {
    const auto bos = id_of(header, kBosKey, tokens.size());
    if (!bos) throw Error(header.where() + ": has no " + kBosKey + "; expected the token that goes before a prompt");
    config.bos_token = tokens[static_cast<std::size_t>(*bos)];
  }
  return make_sentencepiece_model(to_model(header, tokens), header.where(), config);
}

}  // namespace

std::unique_ptr<const Backend> make_gguf_tokenizer(const std::filesystem::path& file) {
  const Mapping mapping(InputFile::open(gguf_parts(file).front()));
  const auto header = GgufHeader::read(mapping.bytes(), mapping.label());
  constexpr std::string_view kKey = "tokenizer.ggml.model";
  const auto kind = header.text(kKey);
  if (!kind) throw Error(header.where() + ": has no " + std::string(kKey) + "; expected a file with its tokeniser");
  if (*kind == "gpt2") return make_byte_level(header);
  if (*kind == "llama") return make_sentencepiece(header);
  header.refuse(kKey, R"(expected "gpt2" (byte-level BPE) or "llama" (SentencePiece's BPE))");
}

}  // namespace rometrace

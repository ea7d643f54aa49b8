#include "rometrace/text/tokenizer.hpp"

#include <cstddef>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/hex.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/utf8.hpp"
#include "text/backend.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {
namespace {

// SentencePiece counts bytes in an int, and normalisation may lengthen a text.
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 28;

bool has(const std::filesystem::path& folder, const char* name) {
  std::error_code ignored;
  return std::filesystem::exists(folder / name, ignored);
}

/// The SentencePiece model of a folder; nothing where it has none.
std::optional<std::filesystem::path> sentencepiece_file_in(const std::filesystem::path& folder) {
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (has(folder, name)) return folder / name;
  }
  return std::nullopt;
}

/// The first GGUF file of a folder; empty where it has none.
std::filesystem::path gguf_file_in(const std::filesystem::path& folder) {
  std::filesystem::path first;
  std::error_code ignored;
  for (std::filesystem::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    const bool is_gguf = entry->path().extension() == ".gguf";
    if (is_gguf && (first.empty() || entry->path() < first)) first = entry->path();
  }
  return first;
}

[[noreturn]] void refuse_folder(const std::filesystem::path& folder) {
  const std::string where = label_of(folder);
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) throw Error(where + ": no such folder; expected a model's");
  if (const auto file = gguf_file_in(folder); !file.empty()) {
    throw Error(where + ": has no tokeniser, but a GGUF file; expected " + label_of(file) +
                " in place of its folder, or a folder in Hugging Face layout");
  }
  const bool half = has(folder, "vocab.json") || has(folder, "merges.txt");
  throw Error(
      where + ": has " +
      (half ? std::string(has(folder, "vocab.json") ? "vocab.json but no merges.txt" : "merges.txt but no vocab.json")
            : "no tokeniser") +
      "; expected vocab.json and merges.txt, tokenizer.json, or a SentencePiece model (tokenizer.model, "
      "spiece.model, sentencepiece.bpe.model); download the tokeniser's files too");
}

std::unique_ptr<const Backend> load_backend(const std::filesystem::path& folder) {
  const std::string where = label_of(folder);
  const TokenizerConfig config = read_tokenizer_config(folder);
  const auto tokenizer_json = folder / "tokenizer.json";
  const auto sentencepiece = sentencepiece_file_in(folder);
  if (has(folder, "tokenizer.json")) {
    const std::optional<BpeVocabulary> vocabulary = sentencepiece ? read_tokenizer_json_if_bpe(tokenizer_json, config)
                                                                  : read_tokenizer_json(tokenizer_json, config);
    if (vocabulary) {
      const bool of_bytes = vocabulary->rules.alphabet == BpeRules::Alphabet::kBytes;
      return of_bytes ? make_byte_level_bpe(*vocabulary, where) : make_character_bpe(*vocabulary, where);
    }
  }
  if (has(folder, "vocab.json") && has(folder, "merges.txt")) {
    return make_byte_level_bpe(read_vocab_and_merges(folder / "vocab.json", folder / "merges.txt", config), where);
  }
  if (sentencepiece) {
    return make_sentencepiece_model(read_text_file(*sentencepiece), label_of(*sentencepiece), config, tokenizer_json);
  }
  refuse_folder(folder);
}

}  // namespace

struct Tokenizer::Impl {
  std::unique_ptr<const Backend> backend;
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::filesystem::path& model) {
  auto backend = is_model_file(model) ? make_gguf_tokenizer(model) : load_backend(model);
  return Tokenizer(std::make_unique<const Impl>(Impl{std::move(backend)}));
}

std::vector<Token> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  if (const auto at = find_invalid_utf8(text)) {
    throw Error("text, byte " + std::to_string(*at) + ": found " + hex_of_byte(static_cast<unsigned char>(text[*at])) +
                ", which is not part of a UTF-8 character; expected UTF-8; convert the text");
  }
  if (text.size() > kMaxTextBytes) {
    throw Error("text: " + std::to_string(text.size()) + " bytes; expected at most " + std::to_string(kMaxTextBytes));
  }
  return impl_->backend->encode(text, special);
}

std::vector<Token> Tokenizer::encode_prompt(std::string_view text, SpecialTokens special) const {
  std::vector<Token> tokens;
  for (const std::int32_t id : prefix_ids()) tokens.push_back({id, 0, 0});
  const auto of_text = encode(text, special);
  tokens.insert(tokens.end(), of_text.begin(), of_text.end());
  return tokens;
}

std::vector<std::int32_t> ids_of(std::span<const Token> tokens) {
  std::vector<std::int32_t> ids;
  ids.reserve(tokens.size());
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

std::span<const std::int32_t> Tokenizer::prefix_ids() const {
  return impl_->backend->prefix_ids();
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < size()) continue;
    throw Error("token ids, position " + std::to_string(i) + ": " + std::to_string(ids[i]) +
                " is not in the vocabulary; expected 0 to " + std::to_string(size() - 1));
  }
  return impl_->backend->decode(ids);
}

std::string Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= size()) {
    throw Error("token id " + std::to_string(id) + " is not in the vocabulary; expected 0 to " +
                std::to_string(size() - 1));
  }
  return impl_->backend->token_bytes(id);
}

std::int32_t Tokenizer::size() const {
  return impl_->backend->size();
}

std::vector<Token> encode_answer(const Tokenizer& tokenizer, std::string_view text) {
  if (text.size() < 2 || text[0] != ' ' || text[1] == ' ') return tokenizer.encode(text);
  // A tokeniser that puts a space before every text would have two of them.
  auto tokens = tokenizer.encode(text.substr(1));
  if (tokens.empty() || !tokenizer.token_bytes(tokens.front().id).starts_with(' ')) return tokenizer.encode(text);
  for (auto& [id, begin, end] : tokens) {
    ++begin;
    ++end;
  }
  tokens.front().begin = 0;
  return tokens;
}

bool is_special_token(const Tokenizer& tokenizer, std::int32_t id) {
  const auto is_it = [&](const std::vector<Token>& tokens) { return tokens.size() == 1 && tokens.front().id == id; };
  const auto text = tokenizer.token_bytes(id);
  if (find_invalid_utf8(text)) return false;  // part of a character
  return is_it(tokenizer.encode(text, SpecialTokens::kParse)) && !is_it(tokenizer.encode(text));
}

}  // namespace rometrace

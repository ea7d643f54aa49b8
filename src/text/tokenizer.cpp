#include "rometrace/text/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <optional>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/bpe_model.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/pretokenizer.hpp"
#include "rometrace/text/sentencepiece_check.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

using sentencepiece::SentencePieceProcessor;

// SentencePiece counts bytes in an int, and normalisation may lengthen a text.
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 28;

std::string hex(unsigned char byte) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "0x%02X", static_cast<unsigned>(byte));
  return text.data();
}

/// What both kinds of tokeniser can do. `text` is UTF-8 and ids are in range: `Tokenizer` has checked.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::vector<Token> encode(std::string_view text, SpecialTokens special) const = 0;
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
  virtual std::string token_bytes(std::int32_t id) const = 0;
  virtual std::int32_t size() const = 0;
};

/// Loads a serialised model; every way in which SentencePiece may complain becomes an Error.
void load_model(SentencePieceProcessor& processor, const std::string& model, const std::string& where) {
  std::string complaint;
  try {
    const auto status = processor.LoadFromSerializedProto(model);
    if (status.ok()) return;
    complaint = status.ToString();
  } catch (const std::exception& error) {
    complaint = error.what();
  }
  throw Error(where + ": SentencePiece cannot load it (" + one_line(complaint) +
              "); expected a SentencePiece model; is the file complete?");
}

// ---------------------------------------------------------------------------------------------------------------------
// Byte-level BPE

/// The special tokens of a text, leftmost first, the longest of those that begin together (as Hugging Face does).
class SpecialFinder {
 public:
  struct Match {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
  };

  explicit SpecialFinder(std::vector<std::pair<std::string, std::int32_t>> special) : special_(std::move(special)) {
    std::ranges::stable_sort(special_, [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
    for (std::size_t i = 0; i < special_.size(); ++i) {
      by_first_byte_[static_cast<unsigned char>(special_[i].first.front())].push_back(i);
    }
  }

  std::optional<Match> next(std::string_view text, std::size_t from) const {
    for (std::size_t at = from; at < text.size(); ++at) {
      for (const std::size_t i : by_first_byte_[static_cast<unsigned char>(text[at])]) {
        const auto& [content, id] = special_[i];
        if (text.substr(at).starts_with(content)) return Match{at, at + content.size(), id};
      }
    }
    return std::nullopt;
  }

 private:
  std::vector<std::pair<std::string, std::int32_t>> special_;  // longest first
  std::array<std::vector<std::size_t>, 256> by_first_byte_;
};

class ByteLevelBpe final : public Backend {
 public:
  ByteLevelBpe(const BpeVocabulary& vocabulary, const std::string& where) : special_(vocabulary.special) {
    load_model(processor_, to_sentencepiece_model(vocabulary), where);
    for (const std::string& token : vocabulary.tokens) {
      // Only a special token may be written outside the alphabet; it stands for its own text.
      const auto bytes = from_byte_alphabet(token);
      bytes_.push_back(bytes ? *bytes : token);
      if (bytes && bytes->size() == 1) has_token_[static_cast<unsigned char>(bytes->front())] = true;
    }
    for (const auto& [content, id] : vocabulary.special) bytes_[static_cast<std::size_t>(id)] = content;
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<Token> tokens;
    std::size_t begin = 0;
    if (special == SpecialTokens::kParse) {
      while (const auto match = special_.next(text, begin)) {
        append_ordinary(text, begin, match->begin, tokens);
        tokens.push_back({match->id, match->begin, match->end});
        begin = match->end;
      }
    }
    append_ordinary(text, begin, text.size(), tokens);
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) text += bytes_[static_cast<std::size_t>(id)];
    return text;
  }

  std::string token_bytes(std::int32_t id) const override { return bytes_[static_cast<std::size_t>(id)]; }

  std::int32_t size() const override { return static_cast<std::int32_t>(bytes_.size()); }

 private:
  /// Tokens of text[begin, end), which holds no special token that counts.
  void append_ordinary(std::string_view text, std::size_t begin, std::size_t end, std::vector<Token>& tokens) const {
    check_bytes(text, begin, end);
    std::vector<int> ids;
    std::size_t at = begin;
    for (const std::string_view part : pretokenizer_.split(text.substr(begin, end - begin))) {
      const auto status = processor_.Encode(to_byte_alphabet(part), &ids);
      if (!status.ok()) throw Error("text, byte " + std::to_string(at) + ": SentencePiece: " + status.ToString());
      for (const int id : ids) {
        const std::size_t next = at + bytes_[static_cast<std::size_t>(id)].size();
        tokens.push_back({id, at, next});
        at = next;
      }
    }
  }

  void check_bytes(std::string_view text, std::size_t begin, std::size_t end) const {
    for (std::size_t at = begin; at < end; ++at) {
      const auto byte = static_cast<unsigned char>(text[at]);
      if (has_token_[byte]) continue;
      throw Error("text, byte " + std::to_string(at) + ": the byte " + hex(byte) +
                  " has no token in this vocabulary; expected text of the bytes it knows");
    }
  }

  SentencePieceProcessor processor_;
  Pretokenizer pretokenizer_;
  SpecialFinder special_;
  std::vector<std::string> bytes_;     // by id
  std::array<bool, 256> has_token_{};  // GPT-2 itself has all 256
};

// ---------------------------------------------------------------------------------------------------------------------
// SentencePiece models as they are

constexpr std::string_view kSpacePiece = "\xE2\x96\x81";  // "▁"

/// Bytes of the character that begins at `text[at]`; `text` is UTF-8.
std::size_t character_length(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return end - at;
}

class SentencePieceModel final : public Backend {
 public:
  explicit SentencePieceModel(const std::filesystem::path& file) {
    const std::string model = read_text_file(file);
    const std::string where = label_of(file);
    check_sentencepiece_model(model, where);
    load_model(processor_, model, where);
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens) const override {
    sentencepiece::ImmutableSentencePieceText pieces;
    const auto status = processor_.Encode(text, pieces.mutable_proto());
    if (!status.ok()) throw Error("text: SentencePiece cannot split it: " + one_line(status.ToString()));
    std::vector<Token> tokens(pieces.pieces_size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      tokens[i] = {static_cast<std::int32_t>(piece.id()), piece.begin(), piece.end()};
    }
    widen_empty_ranges(text, tokens);
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw Error("token ids: SentencePiece cannot join them: " + one_line(status.ToString()));
    return text;
  }

  std::string token_bytes(std::int32_t id) const override {
    std::string piece = processor_.IdToPiece(id);
    if (processor_.IsByte(id)) {  // "<0xE2>"
      return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    }
    if (processor_.IsControl(id) || processor_.IsUnknown(id)) return piece;
    for (std::size_t at = 0; (at = piece.find(kSpacePiece, at)) != std::string::npos; ++at) {
      piece.replace(at, kSpacePiece.size(), " ");
    }
    return piece;
  }

  std::int32_t size() const override { return processor_.GetPieceSize(); }

 private:
  /// SentencePiece gives a character's bytes to the last of the pieces that come from it and nothing to the others
  /// (byte fallback; characters that normalisation lengthens). Here each of them covers the character. What stays
  /// empty comes from no character: the space that is put before a text.
  void widen_empty_ranges(std::string_view text, std::vector<Token>& tokens) const {
    for (std::size_t i = tokens.size(); i-- > 0;) {
      Token& token = tokens[i];
      const bool is_added_space = i == 0 && processor_.IdToPiece(token.id) == kSpacePiece;
      if (token.begin < token.end || token.begin >= text.size() || is_added_space) continue;
      token.end = token.begin + character_length(text, token.begin);
      const bool next_is_same_character =
          processor_.IsByte(token.id) && i + 1 < tokens.size() && tokens[i + 1].begin == token.begin;
      if (next_is_same_character) token.end = tokens[i + 1].end;
    }
  }

  SentencePieceProcessor processor_;
};

// ---------------------------------------------------------------------------------------------------------------------
// Which files a folder has

bool has(const std::filesystem::path& folder, const char* name) {
  std::error_code ignored;
  return std::filesystem::exists(folder / name, ignored);
}

std::unique_ptr<const Backend> load_backend(const std::filesystem::path& folder) {
  const std::string where = label_of(folder);
  if (has(folder, "vocab.json") && has(folder, "merges.txt")) {
    return std::make_unique<ByteLevelBpe>(read_vocab_and_merges(folder / "vocab.json", folder / "merges.txt"), where);
  }
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (has(folder, name)) return std::make_unique<SentencePieceModel>(folder / name);
  }
  if (has(folder, "tokenizer.json")) {
    return std::make_unique<ByteLevelBpe>(read_tokenizer_json(folder / "tokenizer.json"), where);
  }
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) throw Error(where + ": no such folder; expected a model's");
  const bool half = has(folder, "vocab.json") || has(folder, "merges.txt");
  throw Error(
      where + ": has " +
      (half ? std::string(has(folder, "vocab.json") ? "vocab.json but no merges.txt" : "merges.txt but no vocab.json")
            : "no tokeniser") +
      "; expected vocab.json and merges.txt, tokenizer.json, or a SentencePiece model (tokenizer.model, "
      "spiece.model, sentencepiece.bpe.model); download the tokeniser's files too");
}

}  // namespace

struct Tokenizer::Impl {
  std::unique_ptr<const Backend> backend;
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  return Tokenizer(std::make_unique<const Impl>(Impl{load_backend(folder)}));
}

std::vector<Token> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  if (const auto at = find_invalid_utf8(text)) {
    throw Error("text, byte " + std::to_string(*at) + ": found " + hex(static_cast<unsigned char>(text[*at])) +
                ", which is not part of a UTF-8 character; expected UTF-8; convert the text");
  }
  if (text.size() > kMaxTextBytes) {
    throw Error("text: " + std::to_string(text.size()) + " bytes; expected at most " + std::to_string(kMaxTextBytes));
  }
  return impl_->backend->encode(text, special);
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

}  // namespace rometrace

//! Lists: the store tells names and sizes; what else is known of a blob, each object is asked for.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, list::PaginatedListOptions, path::Path};

use super::{
    key::NAME_BYTES_MAX,
    shelf::{Place, Shelf},
};
use crate::{
    blobs::{BlobInfo, LIST_MAX, Page},
    error::Error,
};

/// Objects of one list that are asked at once.
pub(super) const ASKED_MAX: usize = 32;

/// Some blobs of a bucket, in the order of their keys.
pub(super) async fn list(
    shelf: &Arc<Shelf>,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, Error> {
    let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
    let mut after = after.filter(|after| !after.is_empty()).map(str::to_owned);
    loop {
        let (keys, has_more) = names(shelf, bucket, prefix, after.as_deref(), limit).await?;
        let last = keys.last().map(|(key, _)| key.clone());
        let blobs = known(shelf, keys).await?;
        match last {
            Some(last) if has_more && blobs.is_empty() => after = Some(last),
            last => return Ok(Page { blobs, next: last.filter(|_| has_more) }),
        }
    }
}

/// The keys of one page and their objects, and whether there are more.
async fn names(
    shelf: &Arc<Shelf>,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<(String, Path)>, bool), Error> {
    let begin = shelf.names.prefix(bucket, prefix);
    if begin.len() > NAME_BYTES_MAX {
        return Ok((Vec::new(), false));
    }
    let offset = after.map(|after| cut(shelf.names.after(bucket, after)));
    let wanted = |object: ObjectMeta| {
        let key = shelf.names.key(bucket, &object.location)?;
        // What was cut is still to be compared.
        after.is_none_or(|after| key.as_str() > after).then_some((key, object.location))
    };
    let mut first = itself(shelf, bucket, prefix, &begin).await?;
    first.retain(|(key, _)| after.is_none_or(|after| key.as_str() > after));
    // One more than there is room for tells whether there is more.
    let room = limit.saturating_sub(first.len()).max(1);
    let (found, has_more) = page(shelf, Some(&begin), offset, room, wanted).await?;
    first.extend(found);
    let is_cut = first.len() > limit;
    first.truncate(limit);
    Ok((first, has_more || is_cut))
}

/// The object whose name is all that a list was asked for, where lists leave it out.
async fn itself(
    shelf: &Arc<Shelf>,
    bucket: &str,
    prefix: &str,
    begin: &str,
) -> Result<Vec<(String, Path)>, Error> {
    if prefix.is_empty() || !shelf.dialect.has_lists_without_prefix {
        return Ok(Vec::new());
    }
    match shelf.place(bucket, prefix) {
        Ok(place) if place.path.as_ref() == begin => {
            Ok(place.look().await?.map(|_| (prefix.to_owned(), place.path)).into_iter().collect())
        }
        // No object has that name.
        _ => Ok(Vec::new()),
    }
}

/// Some of the objects behind a name, as what `wanted` makes of them, and whether there are more. Those that it makes nothing of are
/// passed over. Not every store heeds where a list is to begin: `wanted` has to know that, too, and what is passed over comes in large
/// pages. Fails where a store sorts otherwise than by bytes, since something would be left out.
pub(super) async fn page<T>(
    shelf: &Shelf,
    prefix: Option<&str>,
    offset: Option<String>,
    limit: usize,
    wanted: impl Fn(ObjectMeta) -> Option<T>,
) -> Result<(Vec<T>, bool), Error> {
    let is_behind = offset.is_some();
    let mut offset = offset.filter(|_| shelf.dialect.has_list_offset);
    let is_passed_over = is_behind && offset.is_none();
    let (mut token, mut last) = (None, Path::default());
    loop {
        let options = PaginatedListOptions {
            offset: offset.take(),
            max_keys: Some(if is_passed_over { LIST_MAX } else { limit }),
            page_token: token.take(),
            ..PaginatedListOptions::default()
        };
        let page = match shelf.reads.list_paginated(prefix, options).await {
            Ok(page) => page,
            Err(error) => return Err(shelf.explained(&error).await),
        };
        for object in &page.result.objects {
            if object.location.as_ref() < last.as_ref() {
                return Err(Error::Engine(
                    format!(
                        "{}: `{}` is listed behind `{last}`: it does not sort by bytes, and blobs would be left out",
                        shelf.server, object.location
                    )
                    .into(),
                ));
            }
            last.clone_from(&object.location);
        }
        let mut found: Vec<_> = page.result.objects.into_iter().filter_map(&wanted).collect();
        let is_cut = found.len() > limit;
        found.truncate(limit);
        match page.page_token {
            Some(next) if found.is_empty() => token = Some(next),
            next => return Ok((found, is_cut || next.is_some())),
        }
    }
}

/// No name is longer, and what is cut off of one does not bring it behind others that are.
fn cut(mut name: String) -> String {
    let end = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.truncate(end.unwrap_or(0));
    name
}

/// What is known of the blobs that are still there.
async fn known(shelf: &Arc<Shelf>, keys: Vec<(String, Path)>) -> Result<Vec<BlobInfo>, Error> {
    let asked = keys.into_iter().map(|(key, path)| async move {
        let place = Place { shelf, key: &key, path };
        Ok::<_, Error>(place.look().await?.map(|found| found.info))
    });
    stream::iter(asked).buffered(ASKED_MAX).try_filter_map(|info| async move { Ok(info) }).try_collect().await
}

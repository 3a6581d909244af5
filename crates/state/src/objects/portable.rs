//! The blobs of a folder by their names, to move them. Whatever is in the folder and can be a blob's object is one, whoever has put
//! it there. A cursor is the name of an object.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;

use super::{
    blobs::Bucket,
    list::{self, ASKED_MAX},
    shelf::Place,
};
use crate::{
    error::Error,
    portable::{Blob, PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Part, Portable, Record},
};

#[async_trait]
impl Portable for Bucket {
    async fn dump(&self, part: Part, after: Option<&str>) -> Result<Page, Error> {
        let shelf = &self.0;
        if part != Part::Blobs {
            return shelf.cannot(part.name());
        }
        let is_behind = |object: &ObjectMeta| after.is_none_or(|after| object.location.as_ref() > after);
        let offset = after.map(str::to_owned);
        let wanted = |object| Some(object).filter(is_behind);
        let (mut objects, is_cut) =
            list::page(shelf, shelf.names.folder(), offset, PAGE_RECORDS_MAX, wanted).await?;
        let mut bytes = 0_u64;
        let fits = objects.iter().take_while(|object| {
            let has_room = bytes < PAGE_BYTES_MAX as u64;
            bytes = bytes.saturating_add(object.size);
            has_room
        });
        let fits = fits.count();
        let has_more = fits < objects.len() || is_cut;
        objects.truncate(fits);
        let last = objects.last().map(|object| object.location.to_string());
        let asked = objects.into_iter().filter_map(|object| {
            let (bucket, key) = shelf.names.blob(&object.location)?;
            Some(async move {
                let place = Place { shelf, key: &key, path: object.location };
                let Some(found) = place.look().await? else { return Ok::<_, Error>(None) };
                let (size, content_type) = (Some(found.info.size), Some(found.info.content_type));
                Ok(Some(Record::Blob(Blob { bucket, key, size, content_type, fence: None, sha256: None })))
            })
        });
        let records = stream::iter(asked).buffered(ASKED_MAX);
        let records = records.try_filter_map(async |record| Ok(record)).try_collect().await?;
        Ok(Page { records, next: last.filter(|_| has_more), ..Page::default() })
    }

    /// Blobs are written as blobs, and there is nothing else.
    async fn restore(&self, records: Vec<Record>) -> Result<(), Error> {
        match records.first() {
            None => Ok(()),
            Some(record) => self.0.cannot(record.part().name()),
        }
    }
}
